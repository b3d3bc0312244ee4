#!lua flags=no-writes
-- read_entry: one entry of a partition's journal.
--
-- KEYS[1] journal
-- ARGV[1] entry id
--
-- Reply: {entry}, or {} where the journal does not hold it

local journal = KEYS[1]
local entry_id = ARGV[1]

local found = redis.call('XRANGE', journal, entry_id, entry_id)
if not found[1] then
  return {}
end
return {found[1][2][2]}
