-- KEYS[6] operation record: the fingerprint of a request and its first answer. It makes the operation safe to repeat.

-- The first answer, 'conflict' where the key was used for another request, or nil.
local function earlier_answer(fingerprint)
  local record = redis.call('GET', KEYS[6])
  if not record then
    return nil
  end
  local first, answer = string.match(record, '^([^\t]*)\t(.*)$')
  if first ~= fingerprint then
    return 'conflict'
  end
  return 'replayed\t' .. answer
end

local function answer_and_remember(fingerprint, kept, answer)
  redis.call('SET', KEYS[6], fingerprint .. '\t' .. answer, 'PX', kept)
  return 'ok\t' .. answer
end
