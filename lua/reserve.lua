#!lua
-- reserve: open a lease that holds credits while work runs. The lease id makes it safe to repeat.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] closed lease
-- ARGV[1] account id
-- ARGV[2] lease id
-- ARGV[3] amount to hold, micro-credits
-- ARGV[4] floor, micro-credits: how low the available credits may go
-- ARGV[5] version of the pricing document, 0 for none
-- ARGV[6] activation of that document, 0 for none
-- ARGV[7] time to live, milliseconds
-- ARGV[8] what happens when it expires: release | charge
-- ARGV[9] fingerprint of the request
-- ARGV[10] operation type
-- ARGV[11] owner
-- ARGV[12] metadata, JSON or empty
-- ARGV[13] journal limit, entries
-- ARGV[14] cause, JSON
--
-- Reply: ok | replayed, epoch, entry id, balance, held, amount, expires (ms), version
-- Errors, in order: recovery_needed; conflict; closed <settled | released | expired>; stale <activation>; again;
--   insufficient <needed> <balance> <held> <floor> <next expiry, ms>; over_limit; journal_full <limit>

-- include lib/due
-- include lib/admission
-- include lib/closed_lease

local lease_id, amount, floor = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local activation, fingerprint = tonumber(ARGV[6]), ARGV[9]

local account = load_account()
if not account then
  return 'recovery_needed'
end
local time = now()
local more_is_due = false
if account.due and account.due <= time then
  apply_due(account, time, lease_id)
  more_is_due = account.due and account.due <= time
end

local function answer(status, entry_id, lease)
  return status .. '\t' .. account.epoch .. '\t' .. entry_id .. '\t' .. integer(account.balance) .. '\t' ..
    integer(account.held) .. '\t' .. integer(lease.amount) .. '\t' .. integer(lease.expires) .. '\t' .. lease.version
end

local record = redis.call('HGET', KEYS[2], lease_id)
if record then
  local lease = parse_lease(record)
  if lease.fingerprint ~= fingerprint then
    return 'conflict'
  end
  if lease.state ~= 'open' then
    return 'closed\texpired'
  end
  return answer('replayed', string.match(record, '([^\31]*)$'), lease)
end
local how = read_closed_lease()
if how then
  return 'closed\t' .. how
end
local refused = stale(account, activation)
if refused then
  return refused
end
refused = short_of(account, amount, floor)
if refused then
  return more_is_due and 'again' or refused
end
if account.held + amount > MAX_MICRO then
  return more_is_due and 'again' or 'over_limit'
end
refused = journal_full(tonumber(ARGV[13]))
if refused then
  return refused
end

local lease = {
  state = 'open', amount = amount, charged = 0, created = integer(time), expires = time + tonumber(ARGV[7]), floor = floor,
  version = ARGV[5], on_expiry = ARGV[8], fingerprint = fingerprint,
  rest = ARGV[10] .. '\31' .. ARGV[11] .. '\31' .. ARGV[12] .. '\31*',
}
account.held = account.held + amount
local fields = {'held', integer(account.held)}
local falls_due_first = not account.due or lease.expires < account.due
if falls_due_first then
  account.due = lease.expires
  fields[3], fields[4] = 'due', integer(lease.expires)
end
raise_activation(account, activation, fields)
local entry_id = commit(account, 'reserve', 'lease/' .. lease_id .. '/reserve', amount, 0, 0, ARGV[5], ARGV[14], fields,
  lease_id, format_lease(lease))
if falls_due_first then
  redis.call('ZADD', KEYS[4], integer(lease.expires), ARGV[1])
end
return answer('ok', entry_id, lease)
