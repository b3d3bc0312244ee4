#!lua flags=no-writes
-- describe: all that an account is, as it stands now. What has fallen due is counted, and nothing is written.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta
-- ARGV[1] account id
-- ARGV[2] conditions, see lib/conditions
--
-- Reply: {ok, now (ms), balance, held, seq, allowance left, name, text, name, text, ...}: the fields of the account's
--   hash that only some accounts have, see lib/extended; grants in spending order
-- Errors, in order: {recovery_needed}; {stale, activation}; {terms, plan, assigned (ms), its time zone, now (ms),
--   windows}

local account_key = KEYS[1]
local conditions_text = ARGV[2]

-- include lib/opening
-- include lib/plan_caps

local account = load_account()
if not account then
  return {'recovery_needed'}
end
account.read_only = true
local conditions = parse_conditions(conditions_text)
begin(account, conditions)
account.time = account.time or now()
local flat, members = account.extended and redis.call('HGETALL', account_key) or {}, {}
for index = 1, #flat, 2 do
  local name = flat[index]
  local scope = scope_of_field(name)
  if scope and not account.scopes[scope] then
    load_scope(account, scope, flat[index + 1])
  elseif string.find(name, '^member/') then
    local known = account.members and account.members[string.match(name, '^member/(.*)$')]
    members[#members + 1] = name
    members[#members + 1] = known and format_member(known) or flat[index + 1]
  end
end
-- The account's own caps, and those of the plan where nothing has been counted yet.
local shown = {'account'}
for _, scope in ipairs(split(account.plan.scopes, '\29')) do
  if scope == 'members' then
    for index = 1, #members, 2 do
      shown[#shown + 1] = members[index]
    end
  elseif scope ~= 'account' then
    shown[#shown + 1] = scope
  end
end
load_scopes(account, shown)
for _, scope in pairs(account.scopes) do
  scope.read_for_due = nil
end
local refusal = apply_plan_terms(account, conditions)
if refusal then
  return split(refusal, '\t')
end

local reply = {
  'ok', integer(account.time), integer(account.balance), integer(account.held), integer(account.seq),
  integer(allowance_left(account)), 'frozen', account.frozen, 'low', account.low, 'team', account.team or '',
}
local function add(name, text)
  reply[#reply + 1] = name
  reply[#reply + 1] = text
end
account.fields = nil
save_plan(account)
save_period(account)
for _, scope in pairs(account.scopes) do
  scope.changed = true
end
save_scopes(account)
local fields = account.fields
for index = 1, #fields, 2 do
  add(fields[index], fields[index + 1])
end
for _, grant in ipairs(load_grants(account)) do
  add('grant/' .. grant.number, format_grant(grant))
end
for index = 1, #members, 2 do
  add(members[index], members[index + 1])
end
return reply
