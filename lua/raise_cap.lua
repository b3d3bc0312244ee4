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
-- Errors, in order: conflict; recovery_needed; due; stale <activation>; terms <as for set_cap>; no_cap <scope> <id>
--   <ids that there are>; past <now>; journal_full <limit>

local scope, cap_id, limit, until_ms = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local operation_key, record_ms, fingerprint = ARGV[6], ARGV[7], ARGV[8]
local journal_limit, cause, conditions_text = tonumber(ARGV[9]), ARGV[10], ARGV[11]

-- include lib/existing_cap

if until_ms <= account.time then
  return 'past\t' .. integer(account.time)
end
-- include lib/admit

cap.raised, cap.raised_until = limit, until_ms
return commit_cap('raise_cap')
