#!lua
-- add_credits: credits come in, to the pool, or as a grant where they expire or have a priority of their own.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] operation record
-- ARGV[1] account id
-- ARGV[2] amount, micro-credits, above zero
-- ARGV[3] operation key
-- ARGV[4] milliseconds that the operation record is kept
-- ARGV[5] fingerprint of the request
-- ARGV[6] journal limit, entries
-- ARGV[7] cause, JSON
-- ARGV[8] conditions, see lib/conditions
-- ARGV[9] type of the credits
-- ARGV[10] when they expire, milliseconds, 0 never
-- ARGV[11] priority
--
-- Reply: ok | replayed, epoch, entry id, balance, held, amount
-- Errors, in order: conflict; recovery_needed; stale <activation>; terms <plan, assigned (ms), its time zone, now (ms),
--   windows>; again; past <now>; over_limit; too_many_grants <limit>; journal_full <limit>

-- include lib/funds
-- include lib/operation_record
-- include lib/pool

local amount, fingerprint = tonumber(ARGV[2]), ARGV[5]
local expires, priority = tonumber(ARGV[10]), tonumber(ARGV[11])
local is_grant = expires ~= 0 or priority ~= POOL_PRIORITY

local earlier = earlier_answer(fingerprint)
if earlier then
  return earlier
end
local account = load_account()
if not account then
  return 'recovery_needed'
end

local function over_limit()
  if account.balance + amount > MAX_MICRO then
    return 'over_limit'
  end
end

-- Credits come to an account that has more than a balance and leases, or as a grant. Returns a refusal, or nil and the
-- balance before.
local function come_in()
  -- include lib/credit_model
  local conditions = parse_conditions(ARGV[8])
  begin(account, conditions)
  local refused = apply_plan_terms(account, conditions)
  if refused then
    return refused
  end
  account.time = account.time or now()
  if expires ~= 0 and expires <= account.time then
    return 'past\t' .. integer(account.time)
  end
  refused = over_limit()
  if refused then
    return account.more_is_due and 'again' or refused
  end
  if is_grant and #load_grants(account) >= GRANTS_AN_ACCOUNT then
    return 'too_many_grants\t' .. integer(GRANTS_AN_ACCOUNT)
  end
  refused = journal_full(tonumber(ARGV[6]))
  if refused then
    return refused
  end
  local balance_before = account.balance
  if is_grant then
    add_grant(account, amount, ARGV[9], expires, priority)
    await_grants(account)
  else
    account.balance = account.balance + amount
  end
  arm_low_levels(account)
  return nil, balance_before
end

local refused, before = nil, account.balance
if not is_grant and is_plain(account, ARGV[8]) then
  refused = over_limit() or journal_full(tonumber(ARGV[6]))
  account.balance = account.balance + amount
else
  refused, before = come_in()
end
if refused then
  return refused
end
local entry_id = commit(account, {
  operation = 'add_credits', key = ARGV[3], amount = amount, balance_change = account.balance - before, cause = ARGV[7],
})
return answer_and_remember(fingerprint, ARGV[4], account.epoch .. '\t' .. entry_id .. '\t' .. integer(account.balance) ..
  '\t' .. integer(account.held) .. '\t' .. ARGV[2])
