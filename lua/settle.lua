#!lua flags=allow-oom
-- settle: close a lease and charge what the work cost, from its own hold and from what is available above its floor,
-- never from another lease's hold. The rest is the shortfall. An expired lease holds nothing, and is charged all the same.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] closed lease
-- ARGV[1] account id
-- ARGV[2] lease id
-- ARGV[3] actual cost, micro-credits
-- ARGV[4] version of the pricing document that it was priced under, 0 for none
-- ARGV[5] fingerprint of the request
-- ARGV[6] cause, JSON
--
-- Reply: ok | replayed, epoch, entry id, balance, held, charged, shortfall, late (1: the lease had expired)
-- Errors, in order: conflict; closed released; recovery_needed; not_found; reprice <version of the lease>; again; over_limit

-- include lib/due
-- include lib/closed_lease

local lease_id, cost, fingerprint = ARGV[2], tonumber(ARGV[3]), ARGV[5]

local how, first_fingerprint, first_answer = read_closed_lease()
if how == 'released' then
  return 'closed\treleased'
elseif how then
  if first_fingerprint ~= fingerprint then
    return 'conflict'
  end
  return 'replayed\t' .. first_answer
end
local account = load_account()
if not account then
  return 'recovery_needed'
end
local time = now()
if account.due and account.due <= time then
  apply_due(account, time, lease_id)
end
local record = redis.call('HGET', KEYS[2], lease_id)
if not record then
  return 'not_found'
end
local lease = parse_lease(record)
if ARGV[4] ~= '0' and lease.version ~= '0' and ARGV[4] ~= lease.version then
  return 'reprice\t' .. lease.version
end

local above_floor = math.max(0, account.balance - account.held - lease.floor)
-- What pays first: its own hold, or what its expiry charged already.
local own, late = lease.charged, '1'
if lease.state == 'open' then
  own, late = lease.amount, '0'
  account.held = account.held - lease.amount
end
local charged = math.min(cost, own + above_floor)
local shortfall = cost - charged
-- Leases that have expired and were not applied yet still hold what could pay. Its own record must outlast the wait.
if shortfall > 0 and account.due and account.due <= time and lease_due(lease) > time then
  return 'again'
end
local balance_change = lease.charged - charged
if account.balance + balance_change > MAX_MICRO then
  return 'over_limit'
end
account.balance = account.balance + balance_change
local balance, held = integer(account.balance), integer(account.held)
local entry_id = commit(account, 'settle', 'lease/' .. lease_id .. '/settle', cost, balance_change, shortfall, ARGV[4],
  ARGV[6], {'balance', balance, 'held', held}, lease_id, '')
return answer_and_close('settled', fingerprint, account.epoch .. '\t' .. entry_id .. '\t' .. balance .. '\t' .. held ..
  '\t' .. integer(charged) .. '\t' .. integer(shortfall) .. '\t' .. late)
