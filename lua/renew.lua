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

local lease_id, lives_ms = ARGV[2], tonumber(ARGV[3])
local operation_key, record_ms, fingerprint = ARGV[4], ARGV[5], ARGV[6]

-- include lib/once
-- include lib/opening
-- include lib/open_lease

begin(account, NO_CONDITIONS, lease_id)
local lease, refusal = open_lease(account, lease_id)
if not lease then
  return refusal
end

lease.expires = math.max(lease.expires, account.time + lives_ms)
local entry_id = commit(account, {
  operation = 'renew', key = operation_key, amount = lease.amount, version = lease.version, lease_id = lease_id,
  lease = format_lease(lease),
})
return answer_once(account.epoch .. '\t' .. entry_id .. '\t' .. integer(lease.expires))
