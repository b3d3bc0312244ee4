#!lua flags=no-writes
-- journal_lag: how many entries of a partition's journal a consumer group has not acknowledged.
--
-- KEYS[1] journal
-- ARGV[1] group
--
-- Reply: entries; all that the journal holds where the group has not begun, or the server cannot tell

local journal = KEYS[1]
local group = ARGV[1]

-- include lib/group

local found = find_group(journal, group)
if found and found.lag then
  return found.lag + found.pending
end
return redis.call('XLEN', journal)
