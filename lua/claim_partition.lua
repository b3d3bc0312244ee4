#!lua flags=allow-oom
-- claim_partition: own a partition for a consumer group, or go on owning it.
--
-- KEYS[1] claim   KEYS[2] meta
-- ARGV[1] group
-- ARGV[2] worker id
-- ARGV[3] token of the claim that the worker holds, empty where it holds none
-- ARGV[4] milliseconds for which the claim is good
--
-- Reply: the claim's token; empty where another worker owns the partition
-- Errors, in order: recovery_needed; unregistered

-- include lib/claim
-- include lib/integer
-- include lib/now

local meta = redis.call('HMGET', KEYS[2], 'state', 'group/' .. ARGV[1])
if meta[1] ~= 'open' then
  return 'recovery_needed'
elseif not meta[2] then
  return 'unregistered'
end
local time = now()
local expires = integer(time + tonumber(ARGV[4]))
if holds_claim(KEYS[1], ARGV[3]) then
  redis.call('HSET', KEYS[1], 'expires', expires)
  return ARGV[3]
end
local claim = redis.call('HMGET', KEYS[1], 'token', 'number', 'expires')
if claim[1] and claim[1] ~= '' and tonumber(claim[3]) > time then
  return ''
end
local number = integer(tonumber(claim[2] or '0') + 1)
local token = number .. '/' .. ARGV[2]
redis.call('HSET', KEYS[1], 'token', token, 'number', number, 'expires', expires)
return token
