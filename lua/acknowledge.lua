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

-- include lib/claim
-- include lib/trim

-- unpack has a limit, so ids go in portions.
local IDS_AT_A_TIME = 1000

if not holds_claim(KEYS[2], ARGV[2]) then
  return 'lost'
end
for first = 3, #ARGV, IDS_AT_A_TIME do
  redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, first, math.min(first + IDS_AT_A_TIME - 1, #ARGV)))
end
trim_journal(KEYS[1], KEYS[3])
return 'ok'
