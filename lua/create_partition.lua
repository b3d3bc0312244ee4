#!lua
-- create_partition: write a partition's own record, once. It is never written again by any other script, so that a
-- server that lost its memory is told from a new one.
--
-- KEYS[1] meta
-- ARGV[1] namespace id
-- ARGV[2] number of partitions
-- ARGV[3] state: creating | open
--
-- Reply: the namespace id that the record holds

local existing = redis.call('HGET', KEYS[1], 'namespace_id')
if existing then
  if existing == ARGV[1] then
    redis.call('HSET', KEYS[1], 'state', ARGV[3])
  end
  return existing
end
redis.call('HSET', KEYS[1], 'namespace_id', ARGV[1], 'state', ARGV[3], 'epoch', '1', 'partitions', ARGV[2], 'group/ledger', '1')
return ARGV[1]
