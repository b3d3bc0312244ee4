-- include lib/extended
-- include lib/split
-- include lib/windows

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
local CAP = '^([^\31]*)\31(%a+)\31(%a+)\31(%d)\31(%a+)\31([^\31]*)\31(%d+)\31(%d+)\31(%d+)\31(%d+)\31(%d+)' ..
  '\31(%d*)\31(%d+)\31(%d)\31([^\31]*)$'
local CAPS_A_SCOPE = 16
local ROLLING = {minute = 60000, hour = 3600000, day = 86400000, week = 604800000, month = 2592000000}
local BUCKETS = 60

local function parse_cap(record)
  local id, source, window, rolling, action, zone, limit, used, held, start, finish, raised, raised_until, exceeded,
    buckets = string.match(record, CAP)
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

-- Loads the caps of every scope not loaded yet, from the fields of the account's hash.
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

local function find_cap(account, scope, id)
  for index, cap in ipairs(account.scopes[scope].caps) do
    if cap.id == id then
      return cap, index
    end
  end
end
