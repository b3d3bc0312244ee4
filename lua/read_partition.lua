#!lua flags=no-writes
-- read_partition: a partition's own record.
--
-- KEYS[1] meta
--
-- Reply: {field, value, ...}; empty where there is none

return redis.call('HGETALL', KEYS[1])
