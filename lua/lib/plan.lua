-- include lib/account
-- include lib/details

-- The account's plan, one field, separated by \31; '' where it has none:
--   id
--   assigned    milliseconds
--   zone        the account's own time zone, or ''
--   activation  of the pricing document under which the plan's limits and caps were last taken
--   scopes      that the plan caps: account, members, model/<model>; separated by \29
local PLAN = '^([^\31]*)\31(%d+)\31([^\31]*)\31(%d+)\31([^\31]*)$'

local NO_PLAN = {id = '', assigned = '0', zone = '', activation = 0, scopes = ''}

local function parse_plan(text)
  if text == '' then
    return NO_PLAN
  end
  local id, assigned, zone, activation, scopes = string.match(text, PLAN)
  return {id = id, assigned = assigned, zone = zone, activation = tonumber(activation), scopes = scopes}
end

local function save_plan(account)
  local plan = account.plan
  set_extended(account, 'plan', plan.id ~= '' and plan.id .. '\31' .. plan.assigned .. '\31' .. plan.zone .. '\31' ..
    integer(plan.activation) .. '\31' .. plan.scopes or '')
end

local function note_plan(account, id)
  if id ~= '' then
    note(account, 'plan', id)
  end
end

-- Tells whether the plan has caps of its own for a scope: account, member/<member> or model/<model>.
local function plan_caps(plan, scope)
  if string.sub(scope, 1, 7) == 'member/' then
    scope = 'members'
  end
  return string.find('\29' .. plan.scopes .. '\29', '\29' .. scope .. '\29', 1, true) ~= nil
end

-- The activation that the caps of a scope should have been taken under: 0 where the plan has none for it. Documents
-- that were given, not published, have the activation 0 themselves: they are GIVEN here, which no published one is.
local GIVEN = -1

local function caps_activation(plan, scope)
  if not plan_caps(plan, scope) then
    return 0
  end
  return plan.activation == 0 and GIVEN or plan.activation
end
