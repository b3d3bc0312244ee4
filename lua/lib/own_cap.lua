-- include lib/credit_model
-- include lib/operation_record

-- What the scripts that change one spend cap of an account share.
--   KEYS[6] operation record

-- The cap of that id in a scope, or nil and the reply: there is none, and which there are; or what is asked for. Caps that
-- the account's plan has and the account did not spend against yet are there under conditions only.
local function existing_cap(account, scope, id, conditions)
  account.time = account.time or now()
  load_scopes(account, {scope})
  local question = conditions ~= NO_CONDITIONS and apply_plan_terms(account, conditions)
  if question then
    return nil, question
  end
  local cap, index = find_cap(account, scope, id)
  if cap then
    return cap, index
  end
  local ids = {}
  for place, known in ipairs(account.scopes[scope].caps) do
    ids[place] = known.id
  end
  return nil, 'no_cap\t' .. scope .. '\t' .. id .. '\t' .. table.concat(ids, '\31')
end

local function commit_cap(account, scope, operation, key, kept, fingerprint, cause)
  account.scopes[scope].changed = true
  save_scopes(account)
  local entry_id = commit(account, {operation = operation, key = key, cause = cause})
  return answer_and_remember(fingerprint, kept, account.epoch .. '\t' .. entry_id)
end
