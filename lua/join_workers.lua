#!lua flags=allow-oom
-- join_workers: say that a worker of a consumer group is alive, and learn who else is.
--
-- KEYS[1] workers
-- ARGV[1] worker id
-- ARGV[2] milliseconds for which it is believed alive; 0 when it leaves
--
-- Reply: {worker id, ...} of all that are alive

-- include lib/integer
-- include lib/now

local time = now()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', integer(time))
if ARGV[2] == '0' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], integer(time + tonumber(ARGV[2])), ARGV[1])
end
return redis.call('ZRANGE', KEYS[1], 0, -1)
