-- include lib/account
-- include lib/holds
-- include lib/lease
-- include lib/members
-- include lib/now
-- include lib/spending

-- Applies what has fallen due on the account, each with a journal entry of its own: a lease whose time is over no
-- longer holds, an expired one is forgotten a day later, a grant expires. At most DUE_A_CALL changes, so that a script
-- stays short; a script that only reads takes in all of them.
--   first   a lease id that is applied before the bound is reached, or nil
-- Returns how many leases and grants expired, and the micro-credits that went. account.due stays in the past where more
-- is due.
local DUE_A_CALL = 64

local function expire_lease(account, id, lease)
  local before, grounds = account.balance, lease.grounds
  undo_hold(account, lease)
  lease.state = 'expired'
  if lease.on_expiry == 'charge' then
    lease.charged = lease.amount
    local of_balance = balance_part(lease)
    if of_this_period(account, lease) then
      spend_allowance(account, grounds.allowance)
    elseif grounds.allowance > 0 then
      note(account, 'allowance', integer(grounds.allowance) .. ' ' .. integer(grounds.period))
    end
    spend_balance(account, of_balance, true)
    local counted = counted_scopes(lease.amount, grounds.member, parse_models(grounds.models))
    load_counted(account, counted)
    count_charge(account, counted)
    count_spent(account, grounds.member, lease.amount)
    note_plan(account, grounds.plan)
    if account.details then
      lease.grounds = {
        allowance = grounds.allowance, period = grounds.period, plan = grounds.plan, member = grounds.member,
        models = grounds.models, caps = grounds.caps, paid = 'at\29' .. integer(account.time) .. '\29' .. string.gsub(account.details, '\31', '\29'),
      }
    end
    if lease.operation_type ~= 'default' then
      note(account, 'operation_type', lease.operation_type)
    end
  end
  save_scopes(account)
  commit(account, {
    operation = 'expire', key = 'lease/' .. id .. '/expire', amount = lease.amount, balance_change = account.balance - before,
    version = lease.version, details = take_details(account), lease_id = id, lease = format_lease(lease),
  })
end

local function expire_grant(account, grant)
  local part = math.min(grant.remaining, math.max(0, account.balance - account.held))
  if part > 0 then
    expire_part(account, grant, part, 'grant/' .. grant.number .. '/expire')
  end
  return part
end

local function due_before(a, b)
  local a_due, b_due = lease_due(a[2]), lease_due(b[2])
  if a_due ~= b_due then
    return a_due < b_due
  end
  return a[1] < b[1]
end

local function apply_due(account, first)
  local time, bound = account.time, account.read_only and math.huge or DUE_A_CALL
  local flat = redis.call('HGETALL', KEYS[2])
  local due_leases, due_grants, next_due = {}, {}, nil
  local function await(due)
    if not next_due or due < next_due then
      next_due = due
    end
  end
  local function visit(id, record)
    local lease = parse_lease(record)
    local due = lease_due(lease)
    if due > time then
      await(due)
    elseif #due_leases == bound then
      await(time)
    else
      due_leases[#due_leases + 1] = {id, lease}
      if lease.state == 'open' then
        await(lease.expires + CLOSED_LEASE_KEPT)
      end
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
  for _, grant in ipairs(load_grants(account)) do
    if grant.expires > time then
      await(grant.expires)
    elseif grant.expires ~= 0 and grant.expires >= account.due then  -- what expired before that has been through this
      due_grants[#due_grants + 1] = grant
    end
  end

  local leases, grants, credits = 0, 0, 0
  account.due = next_due
  table.sort(due_grants, by_expiry)
  table.sort(due_leases, due_before)
  for _, grant in ipairs(due_grants) do
    grants, credits = grants + 1, credits + expire_grant(account, grant)
  end
  for _, due_lease in ipairs(due_leases) do
    local id, lease = due_lease[1], due_lease[2]
    if lease.state == 'open' then
      expire_lease(account, id, lease)
      leases = leases + 1
    else
      commit(account, {operation = 'forget', key = 'lease/' .. id .. '/forget', version = lease.version, lease_id = id, lease = ''})
    end
  end
  if leases > 0 then
    credits = credits + expire_rests(account)
  end
  for _, scope in pairs(account.scopes) do
    scope.read_for_due = true
  end
  if account.due ~= account.stored_due then
    commit(account, {operation = 'sweep', key = 'sweep/' .. integer(account.seq + 1)})
  end
  return leases, grants, credits
end
