#!lua
-- set_cap: set a spend cap of the account's own. One of the same scope, window, kind, time zone and action gets the new
-- limit and keeps what it has counted.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] operation record
-- ARGV[1] account id
-- ARGV[2] scope: account, member/<member> or model/<model>
-- ARGV[3] window
-- ARGV[4] 1 for a rolling window
-- ARGV[5] action
-- ARGV[6] time zone
-- ARGV[7] limit, micro-credits
-- ARGV[8] operation key
-- ARGV[9] milliseconds that the operation record is kept
-- ARGV[10] fingerprint of the request
-- ARGV[11] journal limit, entries
-- ARGV[12] cause, JSON
-- ARGV[13] conditions, see lib/conditions
--
-- Reply: ok | replayed, epoch, entry id
-- Errors, in order: conflict; recovery_needed; stale <activation>; terms <plan, assigned (ms), its time zone, now (ms),
--   windows>; not_member <member>; too_many_caps <limit>; journal_full <limit>

-- include lib/own_cap

local scope, window, rolling, zone, fingerprint = ARGV[2], ARGV[3], ARGV[4], ARGV[6], ARGV[10]
local conditions = parse_conditions(ARGV[13])

local earlier = earlier_answer(fingerprint)
if earlier then
  return earlier
end
local account = open_account(conditions)
if not account then
  return 'recovery_needed'
end
account.time = account.time or now()
load_scopes(account, {scope})
local caps, cap = account.scopes[scope].caps, nil
for _, known in ipairs(caps) do
  if known.source == 'own' and known.window == window and known.rolling == rolling and known.zone == zone and
    known.action == ARGV[5] then
    cap = known
  end
end
if not cap then
  cap = {
    id = '', source = 'own', window = window, rolling = rolling, action = ARGV[5], zone = zone, used = 0, held = 0, start = 0, finish = 0,
    raised = '', raised_until = 0, exceeded = '0', buckets = '',
  }
  caps[#caps + 1] = cap
end
cap.limit = tonumber(ARGV[7])
local refused = apply_plan_terms(account, conditions)
if refused then
  return refused
end
refused = not_a_member(account, string.match(scope, '^member/(.*)$') or '')
if refused then
  return refused
end
if #account.scopes[scope].caps > CAPS_A_SCOPE then
  return 'too_many_caps\t' .. integer(CAPS_A_SCOPE)
end
refused = journal_full(tonumber(ARGV[11]))
if refused then
  return refused
end
if cap.id == '' then
  cap.id = integer(next_seq(account))
end
return commit_cap(account, scope, 'set_cap', ARGV[8], ARGV[9], fingerprint, ARGV[12])
