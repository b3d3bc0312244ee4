#!lua flags=allow-oom
-- dead_letter: a consumer group gives an entry up. It is kept with the reason, and acknowledged.
--
-- KEYS[1] journal   KEYS[2] claim   KEYS[3] meta   KEYS[4] dead letters
-- ARGV[1] group
-- ARGV[2] token of the claim
-- ARGV[3] entry id
-- ARGV[4] text of the entry
-- ARGV[5] reason
-- ARGV[6] attempts
--
-- Reply: ok
-- Errors: lost

-- include lib/claim
-- include lib/trim

if not holds_claim(KEYS[2], ARGV[2]) then
  return 'lost'
end
redis.call('XADD', KEYS[4], '*', 'entry_id', ARGV[3], 'entry', ARGV[4], 'reason', ARGV[5], 'attempts', ARGV[6])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
trim_journal(KEYS[1], KEYS[3])
return 'ok'
