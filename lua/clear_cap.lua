#!lua
-- clear_cap: forget what was used of a spend cap's window. What open leases hold of it stays.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] operation record
-- ARGV[1] account id
-- ARGV[2] scope: account, member/<member> or model/<model>
-- ARGV[3] cap id
-- ARGV[4] operation key
-- ARGV[5] milliseconds that the operation record is kept
-- ARGV[6] fingerprint of the request
-- ARGV[7] journal limit, entries
-- ARGV[8] cause, JSON
-- ARGV[9] conditions, empty for none: for a cap of the account's plan
--
-- Reply: ok | replayed, epoch, entry id
-- Errors, in order: conflict; recovery_needed; stale, terms (see set_cap); no_cap <scope> <id> <ids that there are>; journal_full <limit>

-- include lib/own_cap

local scope, fingerprint = ARGV[2], ARGV[6]

local earlier = earlier_answer(fingerprint)
if earlier then
  return earlier
end
local conditions = parse_conditions(ARGV[9])
local account = open_account(conditions)
if not account then
  return 'recovery_needed'
end
local cap, missing = existing_cap(account, scope, ARGV[3], conditions)
if not cap then
  return missing
end
local full = journal_full(tonumber(ARGV[7]))
if full then
  return full
end
cap.used, cap.exceeded, cap.buckets = 0, '0', ''
return commit_cap(account, scope, 'clear_cap', ARGV[4], ARGV[5], fingerprint, ARGV[8])
