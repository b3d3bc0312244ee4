-- include lib/extended
-- include lib/conditions
-- include lib/details

-- Spend caps: limits on what may be spent in a window, whoever pays. One field holds all caps of a scope ('account',
-- 'member/<member>', 'model/<model>'): the activation under which the plan's caps in it were taken ('0': it has none,
-- see lib/plan), then the caps, separated by \30. A cap, separated by \31:
--   id       unique in its scope
--   source   own | plan
--   window   minute | hour | day | week | month | total
--   rolling  1 where the window ends now instead of following the calendar
--   action   deny | warn | notify
--   zone     where the calendar is read
--   limit    micro-credits
--   used     what was spent in the window
--   held     what open leases may still spend; it counts in every window until they close
--   start, finish  of the window, milliseconds. finish 0: it ended and what was used since is known, but not the bounds
--            of the window that runs; start is then the latest charge
--   raised, raised_until  another limit until that time, '' and 0 for none
--   exceeded 1 where a charge has passed the limit in this window
--   buckets  of a rolling window: number:amount, separated by spaces
local CAP = '^([^\31]*)\31(%a+)\31(%a+)\31(%d)\31(%a+)\31([^\31]*)\31(%d+)\31(%d+)\31(%d+)\31(%d+)\31(%d+)\31(%d*)\31(%d+)\31(%d)\31([^\31]*)$'
local CAPS_A_SCOPE = 16
local ROLLING = {minute = 60000, hour = 3600000, day = 86400000, week = 604800000, month = 2592000000}
local BUCKETS = 60

local function parse_cap(record)
  local id, source, window, rolling, action, zone, limit, used, held, start, finish, raised, raised_until, exceeded, buckets =
    string.match(record, CAP)
  return {
    id = id, source = source, window = window, rolling = rolling, action = action, zone = zone, limit = tonumber(limit),
    used = tonumber(used), held = tonumber(held), start = tonumber(start), finish = tonumber(finish), raised = raised,
    raised_until = tonumber(raised_until), exceeded = exceeded, buckets = buckets,
  }
end

local function format_cap(cap)
  return cap.id .. '\31' .. cap.source .. '\31' .. cap.window .. '\31' .. cap.rolling .. '\31' .. cap.action .. '\31' ..
    cap.zone .. '\31' .. integer(cap.limit) .. '\31' .. integer(cap.used) .. '\31' .. integer(cap.held) .. '\31' ..
    integer(cap.start) .. '\31' .. integer(cap.finish) .. '\31' .. cap.raised .. '\31' .. integer(cap.raised_until) ..
    '\31' .. cap.exceeded .. '\31' .. cap.buckets
end

local function scope_field(scope)
  return scope == 'account' and 'caps' or 'caps/' .. scope
end

local function scope_of_field(name)
  return name == 'caps' and 'account' or string.match(name, '^caps/(.*)$')
end

local function load_scope(account, scope, text)
  local items = split(text, '\30')
  local loaded = {name = scope, activation = tonumber(items[1] or '0'), caps = {}}
  for index = 2, #items do
    loaded.caps[index - 1] = parse_cap(items[index])
  end
  account.scopes[scope] = loaded
end

-- Reads the caps of scopes that were not read yet. Those that only what fell due has read are the call's own by it.
local function load_scopes(account, scopes)
  if not account.extended then
    for _, scope in ipairs(scopes) do
      account.scopes[scope] = account.scopes[scope] or {name = scope, activation = 0, caps = {}}
    end
    return
  end
  local missing, fields = {}, {}
  for _, scope in ipairs(scopes) do
    if not account.scopes[scope] then
      missing[#missing + 1], fields[#fields + 1] = scope, scope_field(scope)
      account.scopes[scope] = false
    else
      account.scopes[scope].read_for_due = nil
    end
  end
  for first = 1, #fields, ITEMS_A_CALL do
    local last = math.min(#fields, first + ITEMS_A_CALL - 1)
    for index, text in ipairs(redis.call('HMGET', KEYS[1], unpack(fields, first, last))) do
      load_scope(account, missing[first + index - 1], text or '')
    end
  end
end

-- Takes in the caps of all scopes that were not read yet, from the fields of the account's hash.
local function load_all_scopes(account, flat)
  for index = 1, #flat, 2 do
    local scope = scope_of_field(flat[index])
    if scope and flat[index + 1] ~= '' and not account.scopes[scope] then
      load_scope(account, scope, flat[index + 1])
    end
  end
end

local function save_scopes(account)
  for scope, loaded in pairs(account.scopes) do
    if loaded.changed then
      loaded.changed = false
      local items = {integer(loaded.activation)}
      for _, cap in ipairs(loaded.caps) do
        items[#items + 1] = format_cap(cap)
      end
      local empty = not loaded.caps[1] and loaded.activation == 0
      set_extended(account, scope_field(scope), empty and '' or table.concat(items, '\30'))
    end
  end
end

-- What a charge of that amount by that member and those models counts towards: pairs of scope and amount.
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

-- A calendar window that is over, or was never known, and so needs bounds.
local function window_ended(cap, time)
  return cap.rolling == '0' and cap.window ~= 'total' and cap.finish <= time
end

local function window_name(cap)
  return cap.window .. '@' .. cap.zone
end

local function forget_old_buckets(cap, time)
  local oldest = math.floor(time / (ROLLING[cap.window] / BUCKETS)) - BUCKETS
  local used, buckets = 0, {}
  for number, amount in string.gmatch(cap.buckets, '(%d+):(%-?%d+)') do
    if tonumber(number) >= oldest then
      used = used + tonumber(amount)
      buckets[#buckets + 1] = number .. ':' .. amount
    end
  end
  cap.used, cap.buckets = math.max(0, used), table.concat(buckets, ' ')
end

-- Brings a cap's window up to now. Windows only move forward.
local function roll_window(cap, time, bounds)
  if cap.rolling == '1' then
    forget_old_buckets(cap, time)
  elseif window_ended(cap, time) then
    local window = bounds[window_name(cap)]
    if window and window.start <= time and time < window.finish then
      if cap.finish ~= 0 or cap.start < window.start then
        cap.used, cap.exceeded = 0, '0'
      end
      cap.start, cap.finish = window.start, window.finish
    end
  end
  if cap.raised ~= '' and cap.raised_until <= time then
    cap.raised, cap.raised_until = '', 0
  end
end

local function limit_in_force(cap, time)
  if cap.raised ~= '' and time < cap.raised_until then
    return tonumber(cap.raised)
  end
  return cap.limit
end

-- What of an amount is not held already.
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

local function find_cap(account, scope, id)
  for index, cap in ipairs(account.scopes[scope].caps) do
    if cap.id == id then
      return cap, index
    end
  end
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
