#!lua
-- publish_pricing: store the next version of the pricing document and activate it.
--
-- KEYS[1] pricing (of the reserved account)   KEYS[2] unused leases of that account   KEYS[3] journal
-- KEYS[4] due (not read)   KEYS[5] meta   KEYS[6] operation record
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
local activation = integer(account.activation + 1)
local entry_id = commit(account, 'publish_pricing', ARGV[3], 0, 0, 0, version, ARGV[6], {
  'latest', version, 'active', version, 'activation', activation, 'document/' .. version, ARGV[2],
  'published/' .. version, published, 'activation/' .. version, activation,
})
return answer_and_remember(fingerprint, ARGV[4],
  account.epoch .. '\t' .. entry_id .. '\t' .. version .. '\t' .. activation .. '\t' .. published)
