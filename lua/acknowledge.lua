#!lua flags=allow-oom
-- acknowledge: a consumer group is done with entries. The journal drops what every registered group is done with.
--
-- KEYS[1] journal   KEYS[2] claim   KEYS[3] meta
-- ARGV[1] group
-- ARGV[2] token of the claim
-- ARGV[3...] entry ids
--
-- Reply: ok
-- Errors: lost

local journal, claim, meta = KEYS[1], KEYS[2], KEYS[3]
local group, token, entry_ids = ARGV[1], ARGV[2], {}
for index = 3, #ARGV do
  entry_ids[index - 2] = ARGV[index]
end

-- include lib/claim
-- include lib/trim

-- unpack has a limit, so ids go in portions.
local IDS_AT_A_TIME = 1000

if not holds_claim(claim, token) then
  return 'lost'
end
for first = 1, #entry_ids, IDS_AT_A_TIME do
  redis.call('XACK', journal, group, unpack(entry_ids, first, math.min(first + IDS_AT_A_TIME - 1, #entry_ids)))
end
trim_journal(journal, meta)
return 'ok'
