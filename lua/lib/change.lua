-- include lib/once
-- include lib/extended
-- include lib/now

-- The prologue of an operation that changes what an account is, and that does not carry the rules by which leases and
-- grants expire: where something has fallen due it replies `due` for the script, the account is swept, and the
-- operation is sent again.
--   operation_key, cause  the script's own
load_extended(account)
account.time = now()
if account.due and account.due <= account.time then
  return 'due'
end

-- Writes the change, and returns the reply.
local function commit_change(operation)
  local entry_id = commit(account, {operation = operation, key = operation_key, cause = cause})
  return answer_once(account.epoch .. '\t' .. entry_id)
end
