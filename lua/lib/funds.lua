-- include lib/account
-- include lib/now

-- What every account is asked before it may spend, and the words of the refusals.

-- The account keeps the highest activation of a pricing document that any call carried: a call that was priced under an
-- older one is told to price again. 0 is a call that nothing was priced for.
local function stale(account, activation)
  if activation ~= 0 and activation < account.activation then
    return 'stale\t' .. integer(account.activation)
  end
end

-- Refuses what would take allowance and available credits together below the floor.
local function short_of(account, amount, floor, allowance)
  if allowance + account.balance - account.held - amount >= floor then
    return nil
  end
  -- include lib/next_expiry
  local period = account.period
  return 'insufficient\t' .. integer(amount) .. '\t' .. integer(account.balance) .. '\t' .. integer(account.held) ..
    '\t' .. integer(floor) .. '\t' .. next_expiry(account) .. '\t' .. integer(allowance) .. '\t' ..
    (period and account.time < period.finish and integer(period.finish) or '')
end

-- What a lease may still spend of the balance beyond what is its own: nothing of what other leases hold, nothing below its
-- floor.
local function above_floor(account, floor)
  return math.max(0, account.balance - account.held - floor)
end

-- Refuses new work while the journal (KEYS[3]) waits for its consumers.
local function journal_full(limit)
  if redis.call('XLEN', KEYS[3]) >= limit then
    return 'journal_full\t' .. integer(limit)
  end
end

-- Whether an account has nothing but a balance and leases, a call asks for nothing else, and nothing has fallen due: what
-- nearly all accounts are nearly always. Then what the others need is not even defined, see lib/credit_model.
--   time  the server's, or nil where nothing can be due
local function is_plain(account, conditions, time)
  return not account.extended and conditions == '' and not (account.due and account.due <= (time or now()))
end
