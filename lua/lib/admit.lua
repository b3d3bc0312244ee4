-- include lib/integer

-- Refuses new work while the journal waits for its consumers: it replies for the script. Nothing has been written yet.
--   journal_limit  entries, the script's own
if redis.call('XLEN', KEYS[3]) >= journal_limit then
  return 'journal_full\t' .. integer(journal_limit)
end
