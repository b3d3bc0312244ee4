#!lua flags=allow-oom
-- register_group: register a consumer group of a partition's journal, from the journal's beginning. From then on the
-- journal keeps what the group has not acknowledged. Doing it again changes nothing.
--
-- KEYS[1] meta   KEYS[2] journal
-- ARGV[1] group
--
-- Reply: created | existing
-- Errors: recovery_needed

local meta, journal = KEYS[1], KEYS[2]
local group = ARGV[1]

-- include lib/group

if redis.call('HGET', meta, 'state') ~= 'open' then
  return 'recovery_needed'
end
redis.call('HSET', meta, 'group/' .. group, '1')
if find_group(journal, group) then
  return 'existing'
end
redis.call('XGROUP', 'CREATE', journal, group, '0', 'MKSTREAM')
return 'created'
