#!lua flags=no-writes
-- due_accounts: the accounts of a partition on which something has fallen due, soonest first.
--
-- KEYS[1] due
-- ARGV[1] how many at the most
-- ARGV[2] how many to pass over
--
-- Reply: {account id, ...}

local due = KEYS[1]
local count, offset = ARGV[1], ARGV[2]

-- include lib/integer
-- include lib/now

return redis.call('ZRANGEBYSCORE', due, '-inf', integer(now()), 'LIMIT', offset, count)
