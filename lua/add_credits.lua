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

local amount = tonumber(ARGV[2])
local operation_key, record_ms, fingerprint = ARGV[3], ARGV[4], ARGV[5]
local journal_limit, cause, conditions_text = tonumber(ARGV[6]), ARGV[7], ARGV[8]
local credit_type, expires, priority = ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11])

-- include lib/once
-- include lib/funds
-- include lib/pool

local is_grant = expires ~= 0 or priority ~= POOL_PRIORITY

local function over_limit()
  if account.balance + amount > MAX_MICRO then
    return 'over_limit'
  end
end

-- Adds credits to an account that has more than a balance and leases, or as a grant. Returns the balance before; or nil
-- and the refusal.
local function add()
  -- include lib/opening
  -- include lib/plan_caps
  -- include lib/low_balance
  local conditions = parse_conditions(conditions_text)
  begin(account, conditions)
  local refusal = apply_plan_terms(account, conditions)
  if refusal then
    return nil, refusal
  end
  account.time = account.time or now()
  if expires ~= 0 and expires <= account.time then
    return nil, 'past\t' .. integer(account.time)
  end
  refusal = over_limit()
  if refusal then
    return nil, account.more_is_due and 'again' or refusal
  end
  if is_grant and #load_grants(account) >= GRANTS_AN_ACCOUNT then
    return nil, 'too_many_grants\t' .. integer(GRANTS_AN_ACCOUNT)
  end
  local balance_before = account.balance
  if is_grant then
    add_grant(account, amount, credit_type, expires, priority)
    await_grants(account)
  else
    account.balance = account.balance + amount
  end
  arm_low_levels(account)
  return balance_before
end

local before, refusal = account.balance, nil
if not is_grant and is_plain(account, conditions_text) then
  refusal = over_limit()
  account.balance = account.balance + amount
else
  before, refusal = add()
end
if refusal then
  return refusal
end
-- include lib/admit

local entry_id = commit(account, {
  operation = 'add_credits', key = operation_key, amount = amount, balance_change = account.balance - before,
  cause = cause,
})
return answer_once(account.epoch .. '\t' .. entry_id .. '\t' .. integer(account.balance) .. '\t' ..
  integer(account.held) .. '\t' .. integer(amount))
