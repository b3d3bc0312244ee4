-- include lib/group

local function id_is_lower(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
  a_ms, b_ms = tonumber(a_ms), tonumber(b_ms)
  return a_ms < b_ms or (a_ms == b_ms and tonumber(a_seq) < tonumber(b_seq))
end

-- Drops the journal's entries that every registered group has acknowledged, never one that some group still needs. A
-- group that is registered and has not begun to read yet needs them all.
local function trim_journal(journal, meta)
  local lowest
  for _, field in ipairs(redis.call('HKEYS', meta)) do
    local name = string.match(field, '^group/(.*)$')
    if name then
      local group = find_group(journal, name)
      if not group then
        return
      end
      local needed = group['last-delivered-id']
      if group.pending > 0 then
        needed = redis.call('XPENDING', journal, name)[2]
      end
      if not lowest or id_is_lower(needed, lowest) then
        lowest = needed
      end
    end
  end
  if lowest then
    redis.call('XTRIM', journal, 'MINID', '~', lowest)
  end
end
