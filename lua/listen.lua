#!lua flags=allow-oom
-- listen: announce a listener to a partition's signals for a time. A longer time stands.
--
-- KEYS[1] listening
-- ARGV[1] milliseconds
--
-- Reply: ok

local listening_key = KEYS[1]
local listens_ms = tonumber(ARGV[1])

if redis.call('PTTL', listening_key) < listens_ms then
  redis.call('SET', listening_key, '1', 'PX', listens_ms)
end
return 'ok'
