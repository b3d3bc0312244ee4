#!lua
-- signal: tell those who listen to a partition's signals that something was refused. The stream is bounded: the oldest go.
-- It needs no memory that there is not: a server that is full refuses it, and nothing is lost that anybody counts on.
--
-- KEYS[1] signals   KEYS[2] listening
-- ARGV[1] event, JSON
-- ARGV[2] about how many signals are kept
-- ARGV[3] 1: even where nobody listens
--
-- Reply: 1, or 0 where nobody listens

if ARGV[3] ~= '1' and redis.call('EXISTS', KEYS[2]) == 0 then
  return 0
end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'signal', ARGV[1])
return 1
