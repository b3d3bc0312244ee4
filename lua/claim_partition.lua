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

local claim, meta = KEYS[1], KEYS[2]
local group, worker, held_token, claimed_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

-- include lib/claim
-- include lib/integer
-- include lib/now

local record = redis.call('HMGET', meta, 'state', 'group/' .. group)
if record[1] ~= 'open' then
  return 'recovery_needed'
elseif not record[2] then
  return 'unregistered'
end
local time = now()
local expires = integer(time + claimed_ms)
if holds_claim(claim, held_token) then
  redis.call('HSET', claim, 'expires', expires)
  return held_token
end
local stored = redis.call('HMGET', claim, 'token', 'number', 'expires')
if stored[1] and stored[1] ~= '' and tonumber(stored[3]) > time then
  return ''
end
local number = integer(tonumber(stored[2] or '0') + 1)
local token = number .. '/' .. worker
redis.call('HSET', claim, 'token', token, 'number', number, 'expires', expires)
return token
