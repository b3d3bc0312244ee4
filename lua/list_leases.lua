#!lua flags=no-writes
-- list_leases: a page of an account's lease records, as they are stored.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta
-- ARGV[1] account id
-- ARGV[2] cursor, 0 to begin
-- ARGV[3] about how many records to a page
--
-- Reply: {ok, now (ms), next cursor (0: the end), lease id, record, lease id, record, ...}
-- Errors: {recovery_needed}

local leases_key = KEYS[2]
local cursor, count = ARGV[2], ARGV[3]

-- include lib/account
-- include lib/now

if not load_account() then
  return {'recovery_needed'}
end
local page = redis.call('HSCAN', leases_key, cursor, 'COUNT', count)
local reply = {'ok', integer(now()), page[1]}
for _, part in ipairs(page[2]) do
  reply[#reply + 1] = part
end
return reply
