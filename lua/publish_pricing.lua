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

-- include lib/account
-- include lib/now
-- include lib/operation_record

local fingerprint = ARGV[5]

local earlier = earlier_answer(fingerprint)
if earlier then
  return earlier
end
local account = load_account()
if not account then
  return 'recovery_needed'
end
local published = integer(now())
local version = integer(tonumber(redis.call('HGET', KEYS[1], 'latest') or '0') + 1)
account.activation = account.activation + 1
local activation = integer(account.activation)
set_field(account, 'latest', version)
set_field(account, 'active', version)
set_field(account, 'document/' .. version, ARGV[2])
set_field(account, 'published/' .. version, published)
set_field(account, 'activation/' .. version, activation)
local entry_id = commit(account, {operation = 'publish_pricing', key = ARGV[3], version = version, cause = ARGV[6]})
return answer_and_remember(fingerprint, ARGV[4],
  account.epoch .. '\t' .. entry_id .. '\t' .. version .. '\t' .. activation .. '\t' .. published)
