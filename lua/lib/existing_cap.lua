-- include lib/own_cap

-- The cap of an id, and its place among those of the scope; it replies for the script where there is none, or where the
-- plan's terms are missing. Caps of the plan that nothing was spent against yet exist under conditions only.
--   cap_id  the script's own
local refusal = conditions ~= NO_CONDITIONS and apply_plan_terms(account, conditions)
if refusal then
  return refusal
end
local cap, place = find_cap(account, scope, cap_id)
if not cap then
  local ids = {}
  for index, known in ipairs(account.scopes[scope].caps) do
    ids[index] = known.id
  end
  return 'no_cap\t' .. scope .. '\t' .. cap_id .. '\t' .. table.concat(ids, '\31')
end
