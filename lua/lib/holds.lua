-- include lib/allowance
-- include lib/cap_counts
-- include lib/conditions
-- include lib/lease

-- The holds of open leases on an account: a part of the balance, a part of the allowance, and its
-- place in spend caps.

local function balance_part(lease)
  return lease.amount - lease.terms.allowance
end

-- Tells whether the allowance that a lease rests on, or was charged from, belongs to the account's present period.
local function of_this_period(account, lease)
  return account.period ~= nil and lease.terms.allowance > 0 and account.period.number == lease.terms.period
end

local function take_hold(account, amount, allowance)
  account.held = account.held + amount - allowance
  if allowance > 0 then
    account.period.held = account.period.held + allowance
    save_period(account)
  end
end

-- The lease no longer holds anything. What it took from an allowance whose period is over is gone with it.
local function undo_hold(account, lease)
  account.held = account.held - balance_part(lease)
  if of_this_period(account, lease) then
    account.period.held = account.period.held - lease.terms.allowance
    save_period(account)
  end
  release_hold(account, lease.terms.caps)
  release_hold(account, lease.terms.inherited or '')
end

-- Of each model's part what there is of an amount, the first model first.
local function parts_within(models, amount)
  local parts = {}
  for index, model in ipairs(models) do
    local part = math.min(model.amount, amount)
    amount = amount - part
    parts[index] = {name = model.name, amount = part}
  end
  return parts
end

-- Each model's part of a lease's charge. Without models of its own the charge is for those of the lease.
local function charged_models(lease, models, charged)
  if not models[1] then
    models = parse_models(lease.terms.models)
    if models[1] then
      models[#models].amount = charged
    end
  end
  return parts_within(models, charged)
end

-- The terms of a lease, with some of them changed.
local function with_terms(terms, changes)
  local changed = {}
  for name, value in pairs(terms) do
    changed[name] = value
  end
  for name, value in pairs(changes) do
    changed[name] = value
  end
  return changed
end
