-- include lib/change
-- include lib/plan_caps

-- The prologue of the scripts that change one spend cap of an account: it loads the caps of the scope.
--   scope, conditions_text  the script's own
local conditions = parse_conditions(conditions_text)
load_scopes(account, {scope})

local function commit_cap(operation)
  account.scopes[scope].changed = true
  save_scopes(account)
  return commit_change(operation)
end
