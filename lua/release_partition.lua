#!lua flags=allow-oom
-- release_partition: give a partition back, so that another worker can claim it at once.
--
-- KEYS[1] claim
-- ARGV[1] token of the claim
--
-- Reply: ok
-- Errors: lost

-- include lib/claim

if not holds_claim(KEYS[1], ARGV[1]) then
  return 'lost'
end
redis.call('HSET', KEYS[1], 'token', '', 'expires', '0')
return 'ok'
