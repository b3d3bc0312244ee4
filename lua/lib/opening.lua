-- include lib/conditions
-- include lib/due
-- include lib/extended
-- include lib/now

-- The beginning of an operation on an account that may have more than a balance and leases: reads all of it, and
-- applies what has fallen due. account.time is the server's time where anything depends on it, and account.more_is_due
-- says that more has fallen due than one call applies.
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
