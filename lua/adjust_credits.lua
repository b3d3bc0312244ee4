#!lua
-- adjust_credits: a correction by hand, up or down. Down goes below what is available only by force.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] operation record
-- ARGV[1] account id
-- ARGV[2] amount, micro-credits, signed
-- ARGV[3] 1 to go below what is available
-- ARGV[4] operation key
-- ARGV[5] milliseconds that the operation record is kept
-- ARGV[6] fingerprint of the request
-- ARGV[7] journal limit, entries
-- ARGV[8] cause, JSON: who and why
-- ARGV[9] conditions, see lib/conditions
--
-- Reply: ok | replayed, epoch, entry id, balance, held, amount
-- Errors, in order: conflict; recovery_needed; stale <activation>; terms <plan, assigned (ms), its time zone, now (ms),
--   windows>; again; insufficient <needed, balance, held, floor, next expiry (ms), allowance, its end (ms)>;
--   over_limit; journal_full <limit>

local amount, forced = tonumber(ARGV[2]), ARGV[3] == '1'
local operation_key, record_ms, fingerprint = ARGV[4], ARGV[5], ARGV[6]
local journal_limit, cause, conditions_text = tonumber(ARGV[7]), ARGV[8], ARGV[9]

-- include lib/once
-- include lib/opening
-- include lib/plan_caps
-- include lib/funds
-- include lib/low_balance

local conditions = parse_conditions(conditions_text)
begin(account, conditions)
local refusal = apply_plan_terms(account, conditions)
if refusal then
  return refusal
end
if amount < 0 and not forced then
  refusal = short_of(account, -amount, 0, 0)
elseif math.abs(account.balance + amount) > MAX_MICRO then
  refusal = 'over_limit'
end
if refusal then
  return account.more_is_due and 'again' or refusal
end
-- include lib/admit

if amount < 0 then
  spend_balance(account, -amount, false)
else
  account.balance = account.balance + amount
  arm_low_levels(account)
end
local entry_id = commit(account, {
  operation = 'adjust_credits', key = operation_key, amount = amount, balance_change = amount, cause = cause,
  details = take_details(account),
})
return answer_once(account.epoch .. '\t' .. entry_id .. '\t' .. integer(account.balance) .. '\t' ..
  integer(account.held) .. '\t' .. integer(amount))
