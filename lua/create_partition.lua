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

local meta = KEYS[1]
local namespace_id, partitions, state = ARGV[1], ARGV[2], ARGV[3]

local existing = redis.call('HGET', meta, 'namespace_id')
if existing then
  if existing == namespace_id then
    redis.call('HSET', meta, 'state', state)
  end
  return existing
end
redis.call('HSET', meta, 'namespace_id', namespace_id, 'state', state, 'epoch', '1', 'partitions', partitions,
  'group/ledger', '1')
return namespace_id
