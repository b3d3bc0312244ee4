#!lua flags=allow-oom
-- listen: say that somebody listens to a partition's signals for a while, so that they are told. A longer while stands.
--
-- KEYS[1] listening
-- ARGV[1] milliseconds
--
-- Reply: ok

if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
end
return 'ok'
