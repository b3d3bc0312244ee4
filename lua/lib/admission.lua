-- include lib/cap_counts
-- include lib/funds
-- include lib/lease
-- include lib/members
-- include lib/parents
-- include lib/plan_caps

-- The checks before every reserve, deduct and extend, in this order, and the words of the refusals.

local function frozen(account)
  if account.frozen ~= '' then
    return 'frozen\t' .. account.frozen
  end
end

-- Refuses one lease too many of an operation type. Those that have expired do not count, applied or not, nor those that
-- are inside others.
local function too_many_leases(account, operation_type, limit)
  if not limit or redis.call('HLEN', KEYS[2]) < limit then
    return nil
  end
  local running = 0
  for _, record in ipairs(redis.call('HVALS', KEYS[2])) do
    local lease = parse_lease(record)
    if lease.state == 'open' and lease.expires > account.time and lease.operation_type == operation_type and
      not lease.terms.parents then
      running = running + 1
    end
  end
  if running >= limit then
    return 'concurrency\t' .. operation_type .. '\t' .. integer(limit) .. '\t' .. integer(running)
  end
end

-- The part of an amount that the allowance pays: all that it can. The rest comes from the balance.
local function from_allowance(account, conditions, amount)
  return conditions.skip_allowance and 0 or math.min(amount, allowance_left(account))
end

-- Refuses what is more than a parent has left.
local function short_of_parent(account, parent, amount, skip_allowance)
  local left = skip_allowance and balance_part(parent.lease) or parent.lease.amount
  if amount > left then
    -- include lib/held_inside
    return 'budget\t' .. parent.id .. '\t' .. integer(amount) .. '\t' .. integer(left) .. '\t' ..
      held_inside(account, parent)
  end
end

-- Checks that the account may be charged, or hold, an amount: all but the journal's limit. Returns nil, or the
-- refusal.
--   scope_amounts         see lib/caps
--   operation_type  of a lease that is to be opened, or nil
--   parent          that its hold is to be taken out of, or nil
local function refuse(account, conditions, scope_amounts, amount, floor, activation, operation_type, parent)
  local allowance, refusal = 0, stale(account, activation)
  if refusal then
    return refusal
  end
  load_scopes_of(account, scope_amounts)
  if account.extended or conditions ~= NO_CONDITIONS then
    if conditions == NO_CONDITIONS then
      return ask_plan_terms(account, account.plan.id, account.plan.assigned)
    end
    refusal = apply_plan_terms(account, conditions) or frozen(account) or not_a_member(account, conditions.member) or
      (operation_type and not parent and too_many_leases(account, operation_type, conditions.max_concurrent))
    if refusal then
      return refusal
    end
    refusal = cap_reached(account, scope_amounts, parent and held_in_caps(parent.lease.terms))
    allowance = conditions.skip_allowance and 0 or allowance_left(account)
  end
  if not refusal then
    refusal = parent and short_of_parent(account, parent, amount, conditions.skip_allowance) or
      not parent and short_of(account, amount, floor, allowance) or nil
  end
  if refusal and account.more_is_due then
    return 'again'
  end
  return refusal
end
