-- include lib/account

-- The account; it replies for the script where the partition's memory is gone.
local account = load_account()
if not account then
  return 'recovery_needed'
end
