#!lua flags=allow-oom
-- release: close a lease without a charge. What an expired lease was charged comes back.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] closed lease
-- ARGV[1] account id
-- ARGV[2] lease id
-- ARGV[3] cause, JSON
--
-- Reply: ok | replayed, epoch, entry id, balance, held, amount that it no longer holds
-- Errors, in order: closed settled; recovery_needed; not_found; over_limit

-- include lib/due
-- include lib/closed_lease

local lease_id = ARGV[2]

local how, _, first_answer = read_closed_lease()
if how == 'settled' then
  return 'closed\tsettled'
elseif how then
  return 'replayed\t' .. first_answer
end
local account = load_account()
if not account then
  return 'recovery_needed'
end
if account.due then
  local time = now()
  if account.due <= time then
    apply_due(account, time, lease_id)
  end
end
local record = redis.call('HGET', KEYS[2], lease_id)
if not record then
  return 'not_found'
end

local lease = parse_lease(record)
if account.balance + lease.charged > MAX_MICRO then
  return 'over_limit'
end
local released = 0
if lease.state == 'open' then
  released = lease.amount
  account.held = account.held - released
end
account.balance = account.balance + lease.charged
local balance, held = integer(account.balance), integer(account.held)
local entry_id = commit(account, 'release', 'lease/' .. lease_id .. '/release', released, lease.charged, 0, lease.version,
  ARGV[3], {'balance', balance, 'held', held}, lease_id, '')
return answer_and_close('released', '', account.epoch .. '\t' .. entry_id .. '\t' .. balance .. '\t' .. held .. '\t' ..
  integer(released))
