#!lua flags=allow-oom
-- release_partition: give a partition back, so that another worker can claim it at once.
--
-- KEYS[1] claim
-- ARGV[1] token of the claim
--
-- Reply: ok
-- Errors: lost

local claim = KEYS[1]
local token = ARGV[1]

-- include lib/claim

if not holds_claim(claim, token) then
  return 'lost'
end
redis.call('HSET', claim, 'token', '', 'expires', '0')
return 'ok'
