-- The details of an entry: what a charge was paid from, what it counted towards, what it crossed. Pairs of name and
-- value, separated by \31; see Details in the Python code for the names.
local function joined(details, name, value)
  return (details == '' and '' or details .. '\31') .. name .. '\31' .. value
end

-- Of the entry that is being made.
local function note(account, name, value)
  account.details = joined(account.details or '', name, value)
end

local function take_details(account)
  local details = account.details
  account.details = nil
  return details or ''
end
