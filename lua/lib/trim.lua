local function id_is_lower(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
  a_ms, b_ms = tonumber(a_ms), tonumber(b_ms)
  return a_ms < b_ms or (a_ms == b_ms and tonumber(a_seq) < tonumber(b_seq))
end

-- Drops the journal's entries that every registered group has acknowledged, never one that some group still needs. A
-- group that is registered and has not begun to read yet needs them all.
local function trim_journal(journal, meta)
  local groups, missing = {}, 0
  for _, field in ipairs(redis.call('HKEYS', meta)) do
    local group = string.match(field, '^group/(.*)$')
    if group then
      groups[group] = true
      missing = missing + 1
    end
  end
  local lowest
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', journal)) do
    local fields = {}
    for index = 1, #info, 2 do
      fields[info[index]] = info[index + 1]
    end
    if groups[fields.name] then
      missing = missing - 1
      local needed = fields['last-delivered-id']
      if fields.pending > 0 then
        needed = redis.call('XPENDING', journal, fields.name)[2]
      end
      if not lowest or id_is_lower(needed, lowest) then
        lowest = needed
      end
    end
  end
  if lowest and missing == 0 then
    redis.call('XTRIM', journal, 'MINID', '~', lowest)
  end
end
