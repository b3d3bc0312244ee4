#!lua
-- create_team: make an account a team. It gets neither plan nor bonus by that.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] operation record
-- ARGV[1] account id
-- ARGV[2] name of the team
-- ARGV[3] its first member, the owner, '' for none
-- ARGV[4] operation key
-- ARGV[5] milliseconds that the operation record is kept
-- ARGV[6] fingerprint of the request
-- ARGV[7] journal limit, entries
-- ARGV[8] cause, JSON
--
-- Reply: ok | replayed, epoch, entry id
-- Errors, in order: conflict; recovery_needed; is_team <name>; journal_full <limit>

-- include lib/credit_model
-- include lib/operation_record

local owner, fingerprint = ARGV[3], ARGV[6]

local earlier = earlier_answer(fingerprint)
if earlier then
  return earlier
end
local account = open_account(NO_CONDITIONS)
if not account then
  return 'recovery_needed'
end
if account.team then
  return 'is_team\t' .. account.team
end
local full = journal_full(tonumber(ARGV[7]))
if full then
  return full
end
set_extended(account, 'team', ARGV[2])
if owner ~= '' then
  save_member(account, {id = owner, role = 'owner', joined = integer(account.time or now()), spent = 0})
end
local entry_id = commit(account, {operation = 'create_team', key = ARGV[4], cause = ARGV[8]})
return answer_and_remember(fingerprint, ARGV[5], account.epoch .. '\t' .. entry_id)
