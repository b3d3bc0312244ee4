#!lua
-- raise_cap: give a spend cap another limit until a time, then its own again.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] operation record
-- ARGV[1] account id
-- ARGV[2] scope: account, member/<member> or model/<model>
-- ARGV[3] cap id
-- ARGV[4] limit until then, micro-credits
-- ARGV[5] until when, milliseconds
-- ARGV[6] operation key
-- ARGV[7] milliseconds that the operation record is kept
-- ARGV[8] fingerprint of the request
-- ARGV[9] journal limit, entries
-- ARGV[10] cause, JSON
-- ARGV[11] conditions, empty for none: for a cap of the account's plan
--
-- Reply: ok | replayed, epoch, entry id
-- Errors, in order: conflict; recovery_needed; stale, terms (see set_cap); no_cap <scope> <id> <ids that there are>; past <now>; journal_full <limit>

-- include lib/own_cap

local scope, fingerprint = ARGV[2], ARGV[8]

local earlier = earlier_answer(fingerprint)
if earlier then
  return earlier
end
local conditions = parse_conditions(ARGV[11])
local account = open_account(conditions)
if not account then
  return 'recovery_needed'
end
local cap, missing = existing_cap(account, scope, ARGV[3], conditions)
if not cap then
  return missing
end
if tonumber(ARGV[5]) <= account.time then
  return 'past\t' .. integer(account.time)
end
local full = journal_full(tonumber(ARGV[9]))
if full then
  return full
end
cap.raised, cap.raised_until = ARGV[4], tonumber(ARGV[5])
return commit_cap(account, scope, 'raise_cap', ARGV[6], ARGV[7], fingerprint, ARGV[10])
