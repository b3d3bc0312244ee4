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

local journal, claim, meta, dead_letters = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, token, entry_id, text, reason, attempts = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

-- include lib/claim
-- include lib/trim

if not holds_claim(claim, token) then
  return 'lost'
end
redis.call('XADD', dead_letters, '*', 'entry_id', entry_id, 'entry', text, 'reason', reason, 'attempts', attempts)
redis.call('XACK', journal, group, entry_id)
trim_journal(journal, meta)
return 'ok'
