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
-- Errors, in order: conflict; recovery_needed; due; stale <activation>; terms <as for set_cap>; no_cap <scope> <id>
--   <ids that there are>; journal_full <limit>

local scope, cap_id = ARGV[2], ARGV[3]
local operation_key, record_ms, fingerprint = ARGV[4], ARGV[5], ARGV[6]
local journal_limit, cause, conditions_text = tonumber(ARGV[7]), ARGV[8], ARGV[9]

-- include lib/existing_cap
-- include lib/admit

cap.used, cap.exceeded, cap.buckets = 0, '0', ''
return commit_cap('clear_cap')
