-- include lib/account
-- include lib/now

-- The checks of every account before it spends, and the words of the refusals.

-- Refuses a price that is older than the account: it keeps the highest activation of a pricing document that any call
-- carried. 0 is a call without a price.
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

-- The part of the balance that a lease may spend beyond its own: nothing that other leases hold, nothing below its
-- floor.
local function above_floor(account, floor)
  return math.max(0, account.balance - account.held - floor)
end

-- Tells whether an account has nothing but a balance and leases, a call asks for nothing else, and nothing has fallen
-- due: nearly every call. The functions that other calls need are then not even defined.
--   time  the server's, or nil where nothing can be due
local function is_plain(account, conditions, time)
  return not account.extended and conditions == '' and not (account.due and account.due <= (time or now()))
end
