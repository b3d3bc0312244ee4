-- include lib/extended
-- include lib/details

-- Low-balance levels: each fires once when a charge takes the balance to it or below, and is armed again by credits
-- that come in.

local function fire_low_levels(account, levels, balance_before)
  if levels == '' or account.balance >= balance_before then
    return
  end
  local fired = account.low
  for level in string.gmatch(levels, '%d+') do
    if account.balance <= tonumber(level) and not string.find(' ' .. fired .. ' ', ' ' .. level .. ' ', 1, true) then
      fired = fired == '' and level or fired .. ' ' .. level
      note(account, 'low', level)
    end
  end
  if fired ~= account.low then
    account.low = fired
    set_extended(account, 'low', fired)
  end
end

local function arm_low_levels(account)
  local fired = {}
  for level in string.gmatch(account.low, '%d+') do
    if tonumber(level) >= account.balance then
      fired[#fired + 1] = level
    end
  end
  local text = table.concat(fired, ' ')
  if text ~= account.low then
    account.low = text
    set_extended(account, 'low', text)
  end
end
