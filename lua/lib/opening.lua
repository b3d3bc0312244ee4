-- include lib/due

-- How every operation on an account begins that may have more than a balance and leases: read all of it, and apply what
-- has fallen due. account.time is the server's time where anything can depend on it, and account.more_is_due says that
-- more has fallen due than one call applies.
--   conditions  see lib/conditions
--   first       a lease id that is applied before others, or nil
local function begin(account, conditions, first)
  load_extended(account)
  if account.due or account.extended or first or conditions ~= NO_CONDITIONS then
    account.time = now()
    if account.due and account.due <= account.time then
      apply_due(account, first)
      account.more_is_due = account.due and account.due <= account.time
    end
  end
end

-- Returns nil where recovery is needed.
local function open_account(conditions, first, read_only)
  local account = load_account()
  if account then
    account.read_only = read_only
    begin(account, conditions, first)
  end
  return account
end
