-- include lib/allowance
-- include lib/conditions
-- include lib/plan
-- include lib/split
-- include lib/windows

-- The terms of the account's plan now. Only the caller knows plans and time zones, only the account knows its plan and
-- the ends of its windows: so a script that misses something changes nothing and asks. The answer, separated by \31:
--   plan, activation, zone  of the plan
--   allowance, rollover     micro-credits
--   start, finish           of the running period, 0 and 0 for a plan without an allowance
--   the number of the plan's caps, then of each: scope, window, rolling, action, zone, limit
--   bounds of windows: window@zone, start, finish, ...
local function parse_plan_terms(text)
  local items = split(text, '\31')
  local terms = {
    plan = items[1], activation = tonumber(items[2]), zone = items[3], allowance = tonumber(items[4]),
    rollover = tonumber(items[5]), start = tonumber(items[6]), finish = tonumber(items[7]), caps = {}, bounds = {},
  }
  local next_item = 9
  for index = 1, tonumber(items[8]) do
    terms.caps[index] = {
      scope = items[next_item], window = items[next_item + 1], rolling = items[next_item + 2],
      action = items[next_item + 3], zone = items[next_item + 4], limit = tonumber(items[next_item + 5]),
    }
    next_item = next_item + 6
  end
  for index = next_item, #items, 3 do
    terms.bounds[items[index]] = {start = tonumber(items[index + 1]), finish = tonumber(items[index + 2])}
  end
  return terms
end

local NO_PLAN_TERMS = {caps = {}, bounds = {}}

local function plan_terms_of(conditions)
  return conditions.terms and parse_plan_terms(conditions.terms) or NO_PLAN_TERMS
end

-- The refusal that asks for the terms of a plan, and for the bounds of the windows that have ended in loaded scopes.
local function ask_plan_terms(account, plan, assigned, zone)
  local windows, seen = {}, {}
  for _, scope in pairs(account.scopes) do
    for _, cap in ipairs(scope.read_for_due and {} or scope.caps) do
      local name = window_name(cap)
      if window_ended(cap, account.time) and not seen[name] then
        seen[name] = true
        windows[#windows + 1] = name
      end
    end
  end
  table.sort(windows)
  return 'terms\t' .. plan .. '\t' .. assigned .. '\t' .. (zone or account.plan.zone) .. '\t' ..
    integer(account.time) .. '\t' .. table.concat(windows, '\31')
end

local function runs(terms, time)
  return terms.finish == 0 or (terms.start <= time and time < terms.finish)
end

-- Begins or changes the allowance's period. Without an allowance the running period is kept until it ends, with nothing
-- left of it: what was used stays used when an allowance is assigned again.
local function apply_period(account, terms)
  local period, time = account.period, account.time
  if terms.finish == 0 then
    if period and period.finish <= time then
      account.period = nil
      save_period(account)
    elseif period and (period.limit ~= 0 or period.rolled ~= 0) then
      period.limit, period.rolled = 0, 0
      save_period(account)
    end
  elseif not period or period.finish <= time then
    roll_period(account, terms)
    save_period(account)
  elseif period.limit ~= terms.allowance or period.start ~= terms.start or period.finish ~= terms.finish then
    period.limit, period.start, period.finish = terms.allowance, terms.start, terms.finish
    save_period(account)
  end
end

local function scopes_of(terms)
  local scopes, seen = {}, {}
  for _, cap in ipairs(terms.caps) do
    if not seen[cap.scope] then
      seen[cap.scope] = true
      scopes[#scopes + 1] = cap.scope
    end
  end
  return table.concat(scopes, '\29')
end

-- Opens a new account with its bonus and plan, in an entry of its own before that of the operation.
local function open_with_bonus(account, conditions)
  if account.created and conditions.opens and not account.opening then
    account.balance = account.balance + conditions.bonus
    account.opening = {
      operation = 'open_account', key = 'open', amount = conditions.bonus, balance_change = conditions.bonus,
      fields = changed_fields(account),
    }
  end
end

-- Brings plan and allowance up to now, and opens a new account with its bonus and plan. Returns the refusal that asks
-- for what is missing, or nil; after a refusal nothing that was changed here may be written.
local function apply_plan(account, conditions, terms)
  local plan, time = account.plan, account.time
  if account.created and conditions.opens and plan.id == '' and not account.opened then
    plan = {id = conditions.plan, assigned = '0', zone = '', activation = 0, scopes = ''}
    if plan.id ~= '' and not (terms.plan == plan.id and runs(terms, time)) then
      return ask_plan_terms(account, plan.id, '0')
    end
    plan.assigned = integer(time)
    account.plan, account.opened = plan, true
  elseif plan.id ~= conditions.plan then
    return ask_plan_terms(account, plan.id, plan.assigned)
  end
  if plan.id ~= '' then
    if conditions.activation ~= 0 and conditions.activation < plan.activation then
      return 'stale\t' .. integer(plan.activation)
    end
    local period_ended = account.period and account.period.finish <= time
    local newer = conditions.activation > plan.activation
    if terms.plan == plan.id and runs(terms, time) then
      apply_period(account, terms)
      local scopes = scopes_of(terms)
      if plan.scopes ~= scopes or plan.activation ~= math.max(plan.activation, terms.activation) or account.opened then
        plan.scopes, plan.activation = scopes, math.max(plan.activation, terms.activation)
        save_plan(account)
      end
    elseif period_ended or newer or conditions.terms then
      return ask_plan_terms(account, plan.id, plan.assigned)
    end
  end
  if account.opened then
    open_with_bonus(account, conditions)
  end
end
