#!lua
-- publish_pricing: store the next version of the pricing document and activate it.
--
-- KEYS[1] pricing (of the reserved account)   KEYS[2] unused leases of that account   KEYS[3] journal
-- KEYS[4] due   KEYS[5] meta   KEYS[6] operation record
-- ARGV[1] the reserved account id
-- ARGV[2] document, JSON
-- ARGV[3] operation key
-- ARGV[4] milliseconds that the operation record is kept
-- ARGV[5] fingerprint of the request
-- ARGV[6] cause, JSON
--
-- Reply: ok | replayed, epoch, entry id, version, activation, published (ms)
-- Errors, in order: conflict; recovery_needed

local account_key = KEYS[1]
local document = ARGV[2]
local operation_key, record_ms, fingerprint = ARGV[3], ARGV[4], ARGV[5]
local cause = ARGV[6]

-- include lib/once
-- include lib/now

local published = integer(now())
local version = integer(tonumber(redis.call('HGET', account_key, 'latest') or '0') + 1)
account.activation = account.activation + 1
local activation = integer(account.activation)
set_field(account, 'latest', version)
set_field(account, 'active', version)
set_field(account, 'document/' .. version, document)
set_field(account, 'published/' .. version, published)
set_field(account, 'activation/' .. version, activation)
local entry_id = commit(account, {operation = 'publish_pricing', key = operation_key, version = version, cause = cause})
return answer_once(account.epoch .. '\t' .. entry_id .. '\t' .. version .. '\t' .. activation .. '\t' ..
  published)
