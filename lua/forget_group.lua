#!lua flags=allow-oom
-- forget_group: remove a consumer group from a partition, so that the journal no longer waits for it. Its dead letters
-- stay.
--
-- KEYS[1] meta   KEYS[2] journal   KEYS[3] claim
-- ARGV[1] group
--
-- Reply: 1 where it was registered, 0 where not

local meta, journal, claim = KEYS[1], KEYS[2], KEYS[3]
local group = ARGV[1]

-- include lib/trim

local removed = redis.call('HDEL', meta, 'group/' .. group)
if redis.call('EXISTS', journal) == 1 then
  redis.call('XGROUP', 'DESTROY', journal, group)
  trim_journal(journal, meta)
end
redis.call('DEL', claim)
return removed
