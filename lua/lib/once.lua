-- include lib/account

-- The prologue of an operation that may be repeated: it replies for the script where the operation was made before,
-- with its first answer, or with `conflict` where its key was used for another request. Else it loads the account.
--   KEYS[6] operation record: the fingerprint of a request and its first answer
--   fingerprint, record_ms  the script's own: of the request, and how long its answer is remembered
local operation_record = KEYS[6]

local earlier = redis.call('GET', operation_record)
if earlier then
  local first, answer = string.match(earlier, '^([^\t]*)\t(.*)$')
  if first ~= fingerprint then
    return 'conflict'
  end
  return 'replayed\t' .. answer
end
-- include lib/loaded

-- Remembers the answer, and returns the reply.
local function answer_once(answer)
  redis.call('SET', operation_record, fingerprint .. '\t' .. answer, 'PX', record_ms)
  return 'ok\t' .. answer
end
