#!lua flags=no-writes
-- read_partition: a partition's own record.
--
-- KEYS[1] meta
--
-- Reply: {field, value, ...}; empty where there is none

local meta = KEYS[1]

return redis.call('HGETALL', meta)
