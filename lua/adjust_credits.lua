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
--   windows>; again; insufficient <needed, balance, held, floor, next expiry (ms), allowance, its end (ms)>; over_limit;
--   journal_full <limit>

-- include lib/credit_model
-- include lib/operation_record

local amount, fingerprint = tonumber(ARGV[2]), ARGV[6]
local conditions = parse_conditions(ARGV[9])

local earlier = earlier_answer(fingerprint)
if earlier then
  return earlier
end
local account = open_account(conditions)
if not account then
  return 'recovery_needed'
end
local refused = apply_plan_terms(account, conditions)
if refused then
  return refused
end
if amount < 0 and ARGV[3] ~= '1' then
  refused = short_of(account, -amount, 0, 0)
elseif math.abs(account.balance + amount) > MAX_MICRO then
  refused = 'over_limit'
end
if refused then
  return account.more_is_due and 'again' or refused
end
refused = journal_full(tonumber(ARGV[7]))
if refused then
  return refused
end

if amount < 0 then
  spend_balance(account, -amount, false)
else
  account.balance = account.balance + amount
  arm_low_levels(account)
end
local entry_id = commit(account, {
  operation = 'adjust_credits', key = ARGV[4], amount = amount, balance_change = amount, cause = ARGV[8],
  details = take_details(account),
})
return answer_and_remember(fingerprint, ARGV[5], account.epoch .. '\t' .. entry_id .. '\t' .. integer(account.balance) ..
  '\t' .. integer(account.held) .. '\t' .. ARGV[2])
