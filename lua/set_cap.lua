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
-- Errors, in order: conflict; recovery_needed; due; stale <activation>; terms <plan, assigned (ms), its time zone, now
--   (ms), windows>; not_member <member>; too_many_caps <limit>; journal_full <limit>

local scope, window, rolling, action, zone = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local limit = tonumber(ARGV[7])
local operation_key, record_ms, fingerprint = ARGV[8], ARGV[9], ARGV[10]
local journal_limit, cause, conditions_text = tonumber(ARGV[11]), ARGV[12], ARGV[13]

-- include lib/own_cap
-- include lib/members

local caps, cap = account.scopes[scope].caps, nil
for _, known in ipairs(caps) do
  if known.source == 'own' and known.window == window and known.rolling == rolling and known.zone == zone and
    known.action == action then
    cap = known
  end
end
if not cap then
  cap = {
    id = '', source = 'own', window = window, rolling = rolling, action = action, zone = zone, used = 0, held = 0,
    start = 0, finish = 0, raised = '', raised_until = 0, exceeded = '0', buckets = '',
  }
  caps[#caps + 1] = cap
end
cap.limit = limit
local refusal = apply_plan_terms(account, conditions) or
  not_a_member(account, string.match(scope, '^member/(.*)$') or '')
if refusal then
  return refusal
end
if #account.scopes[scope].caps > CAPS_A_SCOPE then
  return 'too_many_caps\t' .. integer(CAPS_A_SCOPE)
end
-- include lib/admit

if cap.id == '' then
  cap.id = integer(next_seq(account))
end
return commit_cap('set_cap')
