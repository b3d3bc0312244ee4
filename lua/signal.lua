#!lua
-- signal: report a refusal to the listeners of a partition's signals. The stream is bounded: the oldest go. May fail
-- with OOM; signals are best effort.
--
-- KEYS[1] signals   KEYS[2] listening
-- ARGV[1] event, JSON
-- ARGV[2] about how many signals are kept
-- ARGV[3] 1: even where nobody listens
--
-- Reply: 1, or 0 where nobody listens

local signals_key, listening_key = KEYS[1], KEYS[2]
local event, kept, unheard = ARGV[1], ARGV[2], ARGV[3] == '1'

if not unheard and redis.call('EXISTS', listening_key) == 0 then
  return 0
end
redis.call('XADD', signals_key, 'MAXLEN', '~', kept, '*', 'signal', event)
return 1
