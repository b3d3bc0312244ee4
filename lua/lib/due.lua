-- include lib/account
-- include lib/lease
-- include lib/now

-- Applies what has fallen due on the account, each with a journal entry of its own: a lease whose time is over no
-- longer holds, an expired one is forgotten a day later. At most DUE_A_CALL changes, so that a script stays short.
--   KEYS[4] due: sorted set of the partition's accounts by the time at which something of theirs falls due
--   first   a lease id that is applied before the bound is reached, or nil
-- Returns the number of leases that expired. account.due stays in the past where more is due.
local DUE_A_CALL = 64

local function apply_due(account, time, first)
  local flat = redis.call('HGETALL', KEYS[2])
  local due_leases, next_due = {}, nil
  local function visit(id, record)
    local lease = parse_lease(record)
    local due = lease_due(lease)
    if due <= time and #due_leases < DUE_A_CALL then
      due_leases[#due_leases + 1] = {id, lease}
      due = lease.state == 'open' and lease.expires + CLOSED_LEASE_KEPT or nil
    end
    if due and (not next_due or due < next_due) then
      next_due = due
    end
  end
  local first_record = first and redis.call('HGET', KEYS[2], first)
  if first_record then
    visit(first, first_record)
  end
  for index = 1, #flat, 2 do
    if flat[index] ~= first then
      visit(flat[index], flat[index + 1])
    end
  end

  account.due = next_due
  local due_text = next_due and integer(next_due) or ''
  local fields, expired = {'due', due_text}, 0
  if not due_leases[1] then
    commit(account, 'sweep', 'sweep/' .. integer(account.seq + 1), 0, 0, 0, '0', '', fields)
  end
  for _, due_lease in ipairs(due_leases) do
    local id, lease = due_lease[1], due_lease[2]
    if lease.state == 'open' then
      lease.state = 'expired'
      if lease.on_expiry == 'charge' then
        lease.charged = lease.amount
      end
      account.held = account.held - lease.amount
      account.balance = account.balance - lease.charged
      fields[#fields + 1] = 'held'
      fields[#fields + 1] = integer(account.held)
      if lease.charged > 0 then
        fields[#fields + 1] = 'balance'
        fields[#fields + 1] = integer(account.balance)
      end
      commit(account, 'expire', 'lease/' .. id .. '/expire', lease.amount, -lease.charged, 0, lease.version, '', fields,
        id, format_lease(lease))
      expired = expired + 1
    else
      commit(account, 'forget', 'lease/' .. id .. '/forget', 0, 0, 0, lease.version, '', fields, id, '')
    end
    fields = {}
  end
  if next_due then
    redis.call('ZADD', KEYS[4], due_text, ARGV[1])
  else
    redis.call('ZREM', KEYS[4], ARGV[1])
  end
  return expired
end
