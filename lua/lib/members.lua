-- include lib/extended
-- include lib/details

-- A team is an account with members. `team` holds its name; one field a member, separated by \31:
--   role    owner | admin | member | removed
--   joined  milliseconds
--   spent   micro-credits that the member ever spent of the team's
local MEMBER = '^(%a+)\31(%d+)\31(%d+)$'

-- Cached for the run, so a script that only reads sees its own changes.
local function load_member(account, id)
  local members = account.members or {}
  account.members = members
  if not members[id] then
    local record = account.extended and redis.call('HGET', KEYS[1], 'member/' .. id)
    if not record then
      return nil
    end
    local role, joined, spent = string.match(record, MEMBER)
    members[id] = {id = id, role = role, joined = joined, spent = tonumber(spent)}
  end
  return members[id]
end

local function format_member(member)
  return member.role .. '\31' .. member.joined .. '\31' .. integer(member.spent)
end

local function save_member(account, member)
  set_extended(account, 'member/' .. member.id, format_member(member))
end

-- Tells whether a team would be without an owner if that one went.
local function last_owner(account, id)
  local flat = redis.call('HGETALL', KEYS[1])
  for index = 1, #flat, 2 do
    local member = string.match(flat[index], '^member/(.*)$')
    if member and member ~= id and string.match(flat[index + 1], '^owner\31') then
      return false
    end
  end
  return true
end

-- Refuses who does not belong to the account.
local function not_a_member(account, id)
  if id == '' then
    return nil
  end
  local member = load_member(account, id)
  if not account.team or not member or member.role == 'removed' then
    return 'not_member\t' .. id
  end
end

local function count_spent(account, id, amount)
  if id == '' then
    return
  end
  note(account, 'member', id)
  local member = load_member(account, id)
  if member then
    member.spent = math.max(0, member.spent + amount)
    save_member(account, member)
  end
end
