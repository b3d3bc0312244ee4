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
-- Errors, in order: conflict; recovery_needed; due; is_team <name>; journal_full <limit>

local name, owner = ARGV[2], ARGV[3]
local operation_key, record_ms, fingerprint = ARGV[4], ARGV[5], ARGV[6]
local journal_limit, cause = tonumber(ARGV[7]), ARGV[8]

-- include lib/change
-- include lib/members

if account.team then
  return 'is_team\t' .. account.team
end
-- include lib/admit

set_extended(account, 'team', name)
if owner ~= '' then
  save_member(account, {id = owner, role = 'owner', joined = integer(account.time), spent = 0})
end
return commit_change('create_team')
