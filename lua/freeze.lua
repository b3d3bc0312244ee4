#!lua
-- freeze: let an account spend nothing new, or let it spend again.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] operation record
-- ARGV[1] account id
-- ARGV[2] who and why, '' to let it spend again
-- ARGV[3] operation key
-- ARGV[4] milliseconds that the operation record is kept
-- ARGV[5] fingerprint of the request
-- ARGV[6] cause, JSON
-- ARGV[7] conditions, see lib/conditions: they open a new account
--
-- Reply: ok | replayed, epoch, entry id ('' where it was so already)
-- Errors, in order: conflict; recovery_needed; terms <plan, assigned (ms), its time zone, now (ms), windows>

-- include lib/credit_model
-- include lib/operation_record

local reason, fingerprint = ARGV[2], ARGV[5]

local earlier = earlier_answer(fingerprint)
if earlier then
  return earlier
end
local conditions = parse_conditions(ARGV[7])
local account = open_account(conditions)
if not account then
  return 'recovery_needed'
end
local refused = account.created and apply_plan_terms(account, conditions)
if refused then
  return refused
end
if (account.frozen == '') == (reason == '') then
  return 'replayed\t' .. account.epoch .. '\t'
end
set_extended(account, 'frozen', reason)
local operation = 'freeze'
if reason == '' then
  operation = 'unfreeze'
end
local entry_id = commit(account, {operation = operation, key = ARGV[3], cause = ARGV[6]})
return answer_and_remember(fingerprint, ARGV[4], account.epoch .. '\t' .. entry_id)
