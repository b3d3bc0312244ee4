#!lua flags=allow-oom
-- join_workers: announce that a worker of a consumer group is alive, and list those that are.
--
-- KEYS[1] workers
-- ARGV[1] worker id
-- ARGV[2] milliseconds for which it counts as alive; 0 when it leaves
--
-- Reply: {worker id, ...} of all that are alive

local workers = KEYS[1]
local worker, alive_ms = ARGV[1], tonumber(ARGV[2])

-- include lib/integer
-- include lib/now

local time = now()
redis.call('ZREMRANGEBYSCORE', workers, '-inf', integer(time))
if alive_ms == 0 then
  redis.call('ZREM', workers, worker)
else
  redis.call('ZADD', workers, integer(time + alive_ms), worker)
end
return redis.call('ZRANGE', workers, 0, -1)
