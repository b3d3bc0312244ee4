-- include lib/once
-- include lib/nothing_due
-- include lib/plan_caps

-- The prologue of the scripts that change one spend cap of an account: it loads the caps of the scope.
--   scope, operation_key, cause, conditions_text  the script's own
local conditions = parse_conditions(conditions_text)
load_scopes(account, {scope})

local function commit_cap(operation)
  account.scopes[scope].changed = true
  save_scopes(account)
  return answer_once(commit(account, {operation = operation, key = operation_key, cause = cause}))
end
