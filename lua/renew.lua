#!lua flags=allow-oom
-- renew: let a lease live longer. Its expiry only moves forward.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] operation record
-- KEYS[7] closed lease
-- ARGV[1] account id
-- ARGV[2] lease id
-- ARGV[3] time to live from now, milliseconds
-- ARGV[4] operation key
-- ARGV[5] milliseconds that the operation record is kept
-- ARGV[6] fingerprint of the request
--
-- Reply: ok | replayed, epoch, entry id, expires (ms)
-- Errors, in order: conflict; recovery_needed; closed <settled | released>; not_found; expired

-- include lib/open_lease
-- include lib/operation_record

local lease_id, fingerprint = ARGV[2], ARGV[6]

local earlier = earlier_answer(fingerprint)
if earlier then
  return earlier
end
local account = open_account(NO_CONDITIONS, lease_id)
if not account then
  return 'recovery_needed'
end
local lease, refused = open_lease(account, lease_id)
if not lease then
  return refused
end

lease.expires = math.max(lease.expires, account.time + tonumber(ARGV[3]))
local entry_id = commit(account, {
  operation = 'renew', key = ARGV[4], amount = lease.amount, version = lease.version, lease_id = lease_id,
  lease = format_lease(lease),
})
return answer_and_remember(fingerprint, ARGV[5], account.epoch .. '\t' .. entry_id .. '\t' .. integer(lease.expires))
