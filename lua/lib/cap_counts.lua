-- include lib/caps
-- include lib/details

-- The counting of charges and holds in spend caps.

-- The scopes that a charge by a member and models counts in: pairs of scope and amount.
local function amounts_by_scope(amount, member, models)
  local scope_amounts = {{scope = 'account', amount = amount}}
  if member ~= '' then
    scope_amounts[2] = {scope = 'member/' .. member, amount = amount}
  end
  for _, model in ipairs(models) do
    scope_amounts[#scope_amounts + 1] = {scope = 'model/' .. model.name, amount = model.amount}
  end
  return scope_amounts
end

local function load_scopes_of(account, scope_amounts)
  local scopes = {}
  for index, each in ipairs(scope_amounts) do
    scopes[index] = each.scope
  end
  load_scopes(account, scopes)
end

-- The part of an amount that is not held already.
--   covered  what is, by scope and cap id with \29 between; nil where nothing is
local function uncovered(covered, scope, cap, amount)
  return covered and math.max(0, amount - (covered[scope .. '\29' .. cap.id] or 0)) or amount
end

-- Refuses what would pass a limit that denies.
local function cap_reached(account, scope_amounts, covered)
  for _, each in ipairs(scope_amounts) do
    for _, cap in ipairs(account.scopes[each.scope].caps) do
      local limit, needed = limit_in_force(cap, account.time), uncovered(covered, each.scope, cap, each.amount)
      if cap.action == 'deny' and cap.used + cap.held + needed > limit and not (covered and needed == 0) then
        return 'cap\t' .. cap.id .. '\t' .. each.scope .. '\t' .. cap.window .. '\t' .. integer(limit) .. '\t' ..
          integer(cap.used) .. '\t' .. integer(cap.held) .. '\t' .. integer(cap.rolling == '1' and 0 or cap.finish) ..
          '\t' .. integer(needed)
      end
    end
  end
end

local function note_exceeded(account, scope, cap)
  local over = cap.used + cap.held > limit_in_force(cap, account.time)
  if over and cap.exceeded == '0' and cap.action ~= 'deny' then
    cap.exceeded = '1'
    note(account, 'crossed/' .. cap.id, cap.action .. ' ' .. scope)
  elseif not over and cap.rolling == '1' then
    cap.exceeded = '0'
  end
end

-- Adds to what is used of a cap; below zero it is taken back.
local function use_cap(account, cap, amount)
  local time = account.time
  if cap.rolling == '1' then
    forget_old_buckets(cap, time)
    local number = integer(math.floor(time / (ROLLING[cap.window] / BUCKETS)))
    local before = string.match(' ' .. cap.buckets .. ' ', ' ' .. number .. ':(%-?%d+) ')
    local bucket = number .. ':' .. integer((tonumber(before) or 0) + amount)
    if before then
      cap.buckets = string.gsub(cap.buckets, number .. ':%-?%d+', bucket)
    else
      cap.buckets = cap.buckets == '' and bucket or cap.buckets .. ' ' .. bucket
    end
  elseif window_ended(cap, time) then
    if cap.finish ~= 0 then
      cap.used, cap.exceeded, cap.finish = 0, '0', 0
    end
    cap.start = time
  end
  cap.used = math.max(0, cap.used + amount)
end

-- Takes back what a rolling window counted at a time, where it still does.
local function uncount_bucket(cap, amount, charged_at)
  local number = integer(math.floor(charged_at / (ROLLING[cap.window] / BUCKETS)))
  local before = string.match(' ' .. cap.buckets .. ' ', ' ' .. number .. ':(%-?%d+) ')
  if before then
    local taken = math.max(0, math.min(tonumber(before), amount))
    cap.buckets = string.gsub(cap.buckets, number .. ':%-?%d+', number .. ':' .. integer(tonumber(before) - taken))
    cap.used = math.max(0, cap.used - taken)
  end
end

-- Counts a charge in all caps that it counts towards.
local function count_charge(account, scope_amounts)
  for _, each in ipairs(scope_amounts) do
    local scope = account.scopes[each.scope]
    if each.amount ~= 0 then
      for _, cap in ipairs(scope.caps) do
        use_cap(account, cap, each.amount)
        note(account, 'cap/' .. cap.id, integer(each.amount) .. ' ' .. each.scope)
        note_exceeded(account, each.scope, cap)
        scope.changed = true
      end
    end
  end
end

-- Counts a hold, and returns what was recorded: scope, cap id, amount, ...; separated by \29.
local function count_hold(account, scope_amounts, recorded, covered)
  local items = split(recorded, '\29')
  for _, each in ipairs(scope_amounts) do
    local scope = account.scopes[each.scope]
    for _, cap in ipairs(scope.caps) do
      local amount = uncovered(covered, each.scope, cap, each.amount)
      if amount ~= 0 then
        cap.held = cap.held + amount
        local count = #items
        items[count + 1], items[count + 2], items[count + 3] = each.scope, cap.id, integer(amount)
        note_exceeded(account, each.scope, cap)
        scope.changed = true
      end
    end
  end
  return table.concat(items, '\29')
end

-- Takes back what a lease holds, from the caps that it recorded and no others.
local function release_hold(account, recorded)
  local items, scopes = split(recorded, '\29'), {}
  for index = 1, #items, 3 do
    scopes[#scopes + 1] = items[index]
  end
  load_scopes(account, scopes)
  for index = 1, #items, 3 do
    local cap = find_cap(account, items[index], items[index + 1])
    if cap then
      cap.held = math.max(0, cap.held - tonumber(items[index + 2]))
      account.scopes[items[index]].changed = true
    end
  end
end
