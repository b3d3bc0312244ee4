-- include lib/caps
-- include lib/plan_terms

-- The caps of the account's plan.

-- Replaces the plan's caps in a scope by those of the terms, before the account's own; the same cap keeps what it has
-- counted. One that comes back has a new id: what leases recorded of the former one is not taken off it.
local function apply_plan_caps(account, scope, terms, activation)
  local kept, from_plan, own = {}, {}, {}
  for _, cap in ipairs(scope.caps) do
    local its = cap.source == 'own' and own or from_plan
    its[#its + 1] = cap
  end
  local word = string.sub(scope.name, 1, 7) == 'member/' and 'members' or scope.name
  for _, wanted in ipairs(activation ~= 0 and terms.caps or {}) do
    if wanted.scope == word then
      local cap
      for _, known in ipairs(from_plan) do
        if known.window == wanted.window and known.rolling == wanted.rolling and known.action == wanted.action and
          known.zone == wanted.zone then
          cap = known
        end
      end
      cap = cap or {
        id = 'plan-' .. wanted.window .. (wanted.rolling == '1' and '-rolling-' or '-') .. wanted.action .. '-' ..
          integer(next_seq(account)),
        source = 'plan', window = wanted.window, rolling = wanted.rolling, action = wanted.action, zone = wanted.zone,
        used = 0, held = 0, start = 0, finish = 0, raised = '', raised_until = 0, exceeded = '0', buckets = '',
      }
      cap.limit = wanted.limit
      kept[#kept + 1] = cap
    end
  end
  for _, cap in ipairs(own) do
    kept[#kept + 1] = cap
  end
  scope.caps, scope.activation, scope.changed = kept, activation, true
end

-- Brings the caps of a scope up to now. Returns the refusal that asks for what is missing, or nil.
local function update_caps(account, scope, conditions, terms)
  local plan, time = account.plan, account.time
  local activation = caps_activation(plan, scope.name)
  if scope.activation ~= activation or (activation ~= 0 and terms.plan == plan.id and conditions.activation == 0) then
    if activation ~= 0 and terms.plan ~= plan.id then
      return ask_plan_terms(account, plan.id, plan.assigned)
    end
    apply_plan_caps(account, scope, terms, activation)
  end
  for _, cap in ipairs(scope.caps) do
    local start = cap.start
    roll_window(cap, time, terms.bounds)
    scope.changed = scope.changed or cap.start ~= start
    if window_ended(cap, time) then
      return ask_plan_terms(account, plan.id, plan.assigned)
    end
  end
end

-- Brings plan, allowance and the loaded scopes up to now, and opens a new account with its bonus and plan. Returns the
-- refusal that asks for what is missing, or nil; after a refusal nothing that was changed here may be written.
local function apply_plan_terms(account, conditions)
  local terms = plan_terms_of(conditions)
  local refusal = apply_plan(account, conditions, terms)
  if refusal then
    return refusal
  end
  for _, scope in pairs(account.scopes) do
    refusal = not scope.read_for_due and update_caps(account, scope, conditions, terms)
    if refusal then
      return refusal
    end
  end
end
