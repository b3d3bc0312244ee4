#!lua flags=no-writes
-- find_lease: what became of a lease, as it is stored.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] closed lease
-- ARGV[1] account id
-- ARGV[2] lease id
--
-- Reply: {ok, now (ms), epoch}; behind these the record of a lease that is open or has expired; of one that was closed
--   an empty record, how (settled | released), and the answer to that
-- Errors: {recovery_needed}

local leases_key = KEYS[2]
local lease_id = ARGV[2]

-- include lib/account
-- include lib/now
-- include lib/closed_lease

local account = load_account()
if not account then
  return {'recovery_needed'}
end
local reply = {'ok', integer(now()), account.epoch}
local record = redis.call('HGET', leases_key, lease_id)
local how, _, answer = read_closed_lease()
if record then
  reply[4] = record
elseif how then
  reply[4], reply[5], reply[6] = '', how, answer
end
return reply
