#!lua flags=allow-oom
-- register_group: register a consumer group of a partition's journal, from the journal's beginning. From then on the
-- journal keeps what the group has not acknowledged. Doing it again changes nothing.
--
-- KEYS[1] meta   KEYS[2] journal
-- ARGV[1] group
--
-- Reply: created | existing
-- Errors: recovery_needed

-- include lib/group

if redis.call('HGET', KEYS[1], 'state') ~= 'open' then
  return 'recovery_needed'
end
redis.call('HSET', KEYS[1], 'group/' .. ARGV[1], '1')
if find_group(KEYS[2], ARGV[1]) then
  return 'existing'
end
redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[1], '0', 'MKSTREAM')
return 'created'
