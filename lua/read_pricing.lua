#!lua flags=no-writes
-- read_pricing: which pricing document is active, and the text of one.
--
-- KEYS[1] pricing (of the reserved account)   KEYS[2] unused leases of that account   KEYS[3] journal
-- KEYS[4] due   KEYS[5] meta
-- ARGV[1] the reserved account id
-- ARGV[2] version; 0 for the active one
-- ARGV[3] a version whose text the caller has, 0 for none: it is not sent again
--
-- Reply: {ok, active version, its activation, latest version, the version asked for, its activation, published (ms),
--   document}
-- Errors, in order: {recovery_needed}; {none}; {not_found, latest version}

local account_key = KEYS[1]
local wanted, known = ARGV[2], ARGV[3]

-- include lib/account

local account = load_account()
if not account then
  return {'recovery_needed'}
end
local stored = redis.call('HMGET', account_key, 'active', 'latest')
if not stored[1] then
  return {'none'}
end
local version = wanted == '0' and stored[1] or wanted
local details = redis.call('HMGET', account_key, 'activation/' .. version, 'published/' .. version)
if not details[1] then
  return {'not_found', stored[2]}
end
local document = version ~= known and redis.call('HGET', account_key, 'document/' .. version) or ''
return {'ok', stored[1], integer(account.activation), stored[2], version, details[1], details[2], document}
