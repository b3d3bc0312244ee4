#!lua flags=allow-oom
-- read_entries: the next entries of a partition's journal for a consumer group. Every owner of the partition reads as
-- the same consumer of the group, so what a former owner has not acknowledged is pending.
--
-- KEYS[1] journal   KEYS[2] claim   KEYS[3] meta
-- ARGV[1] group
-- ARGV[2] token of the claim
-- ARGV[3] '>' for new entries, or the id above which pending ones are read again
-- ARGV[4] how many at the most
--
-- Reply: {ok, id, text, id, text, ...}, a text is empty where the entry was deleted; {idle, id}: there is nothing above
--   this id, the journal's last
-- Errors, in order: {lost}; {recovery_needed}; {unregistered}; {recreated}: the group was gone and was created again,
--   from the journal's beginning

local journal, claim, meta = KEYS[1], KEYS[2], KEYS[3]
local group, token, after, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

-- include lib/claim
-- include lib/group

if not holds_claim(claim, token) then
  return {'lost'}
end
local reply = redis.pcall('XREADGROUP', 'GROUP', group, 'worker', 'COUNT', count, 'STREAMS', journal, after)
if type(reply) == 'table' and reply.err then
  if find_group(journal, group) then
    return reply
  end
  local record = redis.call('HMGET', meta, 'state', 'group/' .. group)
  if record[1] ~= 'open' then
    return {'recovery_needed'}
  elseif not record[2] then
    return {'unregistered'}
  end
  redis.call('XGROUP', 'CREATE', journal, group, '0', 'MKSTREAM')
  return {'recreated'}
end
if not reply or not reply[1][2][1] then
  local info = redis.call('XINFO', 'STREAM', journal)
  for index = 1, #info, 2 do
    if info[index] == 'last-generated-id' then
      return {'idle', info[index + 1]}
    end
  end
end
local entries = {'ok'}
for _, entry in ipairs(reply[1][2]) do
  entries[#entries + 1] = entry[1]
  entries[#entries + 1] = entry[2] and entry[2][2] or ''
end
return entries
