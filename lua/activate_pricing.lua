#!lua
-- activate_pricing: make a published version of the pricing document the active one. Doing it again changes nothing.
--
-- KEYS[1] pricing (of the reserved account)   KEYS[2] unused leases of that account   KEYS[3] journal
-- KEYS[4] due   KEYS[5] meta
-- ARGV[1] the reserved account id
-- ARGV[2] version
-- ARGV[3] cause, JSON
--
-- Reply: ok | replayed, version, activation, published (ms)
-- Errors, in order: recovery_needed; not_found <latest version>

local account_key = KEYS[1]
local version, cause = ARGV[2], ARGV[3]

-- include lib/loaded

local stored = redis.call('HMGET', account_key, 'active', 'latest', 'published/' .. version)
if not stored[3] then
  return 'not_found\t' .. (stored[2] or '0')
end
if stored[1] == version then
  return 'replayed\t' .. version .. '\t' .. integer(account.activation) .. '\t' .. stored[3]
end
account.activation = account.activation + 1
local activation = integer(account.activation)
set_field(account, 'active', version)
set_field(account, 'activation/' .. version, activation)
commit(account, {
  operation = 'activate_pricing', key = 'activation/' .. activation, version = version, cause = cause,
})
return 'ok\t' .. version .. '\t' .. activation .. '\t' .. stored[3]
