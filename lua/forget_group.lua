#!lua flags=allow-oom
-- forget_group: remove a consumer group from a partition, so that the journal no longer waits for it. Its dead letters
-- stay.
--
-- KEYS[1] meta   KEYS[2] journal   KEYS[3] claim
-- ARGV[1] group
--
-- Reply: 1 where it was registered, 0 where not

-- include lib/trim

local removed = redis.call('HDEL', KEYS[1], 'group/' .. ARGV[1])
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('XGROUP', 'DESTROY', KEYS[2], ARGV[1])
  trim_journal(KEYS[2], KEYS[1])
end
redis.call('DEL', KEYS[3])
return removed
