#!lua
-- remove_cap: remove a spend cap of the account's own.
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
--
-- Reply: ok | replayed, epoch, entry id
-- Errors, in order: conflict; recovery_needed; no_cap <scope> <id> <ids that there are>; plan_cap <id>;
--   journal_full <limit>

-- include lib/own_cap

local scope, fingerprint = ARGV[2], ARGV[6]

local earlier = earlier_answer(fingerprint)
if earlier then
  return earlier
end
local account = open_account(NO_CONDITIONS)
if not account then
  return 'recovery_needed'
end
local cap, place = existing_cap(account, scope, ARGV[3], NO_CONDITIONS)
if not cap then
  return place
end
if cap.source == 'plan' then
  return 'plan_cap\t' .. cap.id
end
local full = journal_full(tonumber(ARGV[7]))
if full then
  return full
end
table.remove(account.scopes[scope].caps, place)
return commit_cap(account, scope, 'remove_cap', ARGV[4], ARGV[5], fingerprint, ARGV[8])
