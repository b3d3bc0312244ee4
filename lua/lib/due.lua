-- include lib/account
-- include lib/cap_counts
-- include lib/details
-- include lib/holds
-- include lib/lease
-- include lib/members
-- include lib/now
-- include lib/parents
-- include lib/spending

-- Applies what has fallen due on the account, in the order in which it fell due, so that it does not matter when
-- somebody comes by; each with a journal entry of its own: a lease whose time is over no longer holds, an expired one
-- is forgotten a day later, a grant expires. At most DUE_A_CALL leases, so that a script stays short; a script that
-- only reads applies all of them, in memory.
--   first   the id of a lease that is among them wherever it comes, or nil
-- Returns how many leases and grants expired, and the micro-credits that went. account.due stays in the past where more
-- is due.
local DUE_A_CALL = 64

local function expire_lease(account, id, lease)
  local before, terms = account.balance, lease.terms
  lease.state = 'expired'
  if lease.on_expiry == 'charge' then
    undo_hold(account, lease)
    lease.charged = lease.amount
    local of_balance = balance_part(lease)
    if of_this_period(account, lease) then
      spend_allowance(account, terms.allowance)
    elseif terms.allowance > 0 then
      note(account, 'allowance', integer(terms.allowance) .. ' ' .. integer(terms.period))
    end
    spend_balance(account, of_balance, true)
    local models = parts_within(parse_models(terms.models), lease.amount)
    local scope_amounts = amounts_by_scope(lease.amount, terms.member, models)
    load_scopes_of(account, scope_amounts)
    count_charge(account, scope_amounts)
    count_spent(account, terms.member, lease.amount)
    note_plan(account, terms.plan)
    if account.details then
      local paid = string.gsub(account.details, '\31', '\29')
      lease.terms = with_terms(terms, {paid = 'at\29' .. integer(account.time) .. '\29' .. paid})
    end
    if lease.operation_type ~= 'default' then
      note(account, 'operation_type', lease.operation_type)
    end
  else
    give_up_hold(account, lease)
  end
  save_scopes(account)
  commit(account, {
    operation = 'expire', key = 'lease/' .. id .. '/expire', amount = lease.amount,
    balance_change = account.balance - before, version = lease.version, details = take_details(account),
    lease_id = id, lease = format_lease(lease),
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
  if a.due ~= b.due then
    return a.due < b.due
  end
  return a.id < b.id
end

local function apply_due(account, first)
  local time, bound = account.time, account.read_only and math.huge or DUE_A_CALL
  local due_leases, due_grants, next_due = {}, {}, nil
  local function await(due)
    if not next_due or due < next_due then
      next_due = due
    end
  end

  local flat, known = redis.call('HGETALL', KEYS[2]), {}
  account.leases = known
  for index = 1, #flat, 2 do
    local lease = parse_lease(flat[index + 1])
    known[flat[index]] = lease
    local due = lease_due(lease)
    if due > time then
      await(due)
    else
      due_leases[#due_leases + 1] = {id = flat[index], lease = lease, due = due}
    end
  end
  table.sort(due_leases, due_before)
  for index = bound + 1, #due_leases do
    if due_leases[index].id == first then
      due_leases[bound], due_leases[index] = due_leases[index], due_leases[bound]
    end
  end
  local left = math.huge
  for index = bound + 1, #due_leases do
    left = math.min(left, due_leases[index].due)
    due_leases[index] = nil
  end
  for _, grant in ipairs(load_grants(account)) do
    -- One waits for all leases that fell due before it.
    if grant.expires > time or grant.expires >= left then
      await(grant.expires)
    elseif grant.expires ~= 0 and grant.expires >= account.due then  -- what expired before that has been through this
      due_grants[#due_grants + 1] = grant
    end
  end
  table.sort(due_grants, by_expiry)
  if left <= time then
    await(left)
  end
  for _, each in ipairs(due_leases) do
    if each.lease.state == 'open' then
      -- Never in the past, where it would send the grants of today through their expiry once more.
      await(math.max(each.lease.expires + CLOSED_LEASE_KEPT, time + 1))
    end
  end

  local leases, grants, credits, index = 0, 0, 0, 1
  local function apply_leases(until_time)
    while due_leases[index] and due_leases[index].due <= until_time do
      local id, lease = due_leases[index].id, due_leases[index].lease
      index = index + 1
      if lease.state == 'open' then
        expire_lease(account, id, lease)
        leases = leases + 1
      else
        known[id] = false
        commit(account, {
          operation = 'forget', key = 'lease/' .. id .. '/forget', version = lease.version, lease_id = id, lease = '',
        })
      end
    end
  end
  account.due = next_due
  for _, grant in ipairs(due_grants) do
    apply_leases(grant.expires)
    if grant.remaining > 0 then
      grants, credits = grants + 1, credits + expire_grant(account, grant)
    end
  end
  apply_leases(time)
  if leases > 0 then
    credits = credits + expire_unheld_grants(account)
  end
  for _, scope in pairs(account.scopes) do
    scope.read_for_due = true
  end
  if account.due ~= account.stored_due then
    commit(account, {operation = 'sweep', key = 'sweep/' .. integer(account.seq + 1)})
  end
  return leases, grants, credits
end
