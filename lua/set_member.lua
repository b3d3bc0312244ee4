#!lua
-- set_member: add a member to a team, change a role, or remove a member. One who is removed is remembered, with what
-- was spent; leases that are open settle.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] operation record
-- ARGV[1] account id
-- ARGV[2] member
-- ARGV[3] role: owner | admin | member | removed
-- ARGV[4] operation key
-- ARGV[5] milliseconds that the operation record is kept
-- ARGV[6] fingerprint of the request
-- ARGV[7] journal limit, entries
-- ARGV[8] cause, JSON
--
-- Reply: ok | replayed, epoch, entry id ('' where it was so already)
-- Errors, in order: conflict; recovery_needed; due; not_team; not_member <member>; last_owner <member>; journal_full
--   <limit>

local id, role = ARGV[2], ARGV[3]
local operation_key, record_ms, fingerprint = ARGV[4], ARGV[5], ARGV[6]
local journal_limit, cause = tonumber(ARGV[7]), ARGV[8]

-- include lib/change
-- include lib/members

if not account.team then
  return 'not_team'
end
local member = load_member(account, id)
if role == 'removed' and (not member or member.role == 'removed') then
  return 'not_member\t' .. id
end
if member and member.role == role then
  return 'replayed\t' .. account.epoch .. '\t'
end
if member and member.role == 'owner' and last_owner(account, id) then
  return 'last_owner\t' .. id
end
-- include lib/admit

if not member or member.role == 'removed' then
  member = {id = id, joined = integer(account.time), spent = member and member.spent or 0}
end
member.role = role
save_member(account, member)
return commit_change('set_member')
