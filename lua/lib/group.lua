-- The server's record of a consumer group of a stream, by name; nil where there is no such group.
local function find_group(journal, group)
  if redis.call('EXISTS', journal) == 0 then
    return nil
  end
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', journal)) do
    local fields = {}
    for index = 1, #info, 2 do
      fields[info[index]] = info[index + 1]
    end
    if fields.name == group then
      return fields
    end
  end
  return nil
end
