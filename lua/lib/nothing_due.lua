-- include lib/extended
-- include lib/now

-- The beginning of an operation that does not carry the rules by which leases and grants expire: where something has
-- fallen due it replies `due` for the script, the account is swept, and the operation is sent again.
load_extended(account)
account.time = now()
if account.due and account.due <= account.time then
  return 'due'
end
