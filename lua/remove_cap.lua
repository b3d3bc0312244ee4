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
-- Errors, in order: conflict; recovery_needed; due; no_cap <scope> <id> <ids that there are>; plan_cap <id>;
--   journal_full <limit>

local scope, cap_id = ARGV[2], ARGV[3]
local operation_key, record_ms, fingerprint = ARGV[4], ARGV[5], ARGV[6]
local journal_limit, cause = tonumber(ARGV[7]), ARGV[8]
local conditions_text = '' -- a cap that its plan would give the account is none of its own

-- include lib/existing_cap

if cap.source == 'plan' then
  return 'plan_cap\t' .. cap.id
end
-- include lib/admit

table.remove(account.scopes[scope].caps, place)
return commit_cap('remove_cap')
