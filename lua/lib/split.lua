-- The grammars of texts, in one place: which separator stands between what, the outermost first. Ids, names and JSON
-- hold no control characters, so nothing is escaped.
--
--   account: a field of its hash
--     \30  caps of a scope
--     \31    fields of one record: cap, grant, member, period, plan
--     \29      scopes of a plan
--   lease: its record
--     \31  fields
--     \30    terms, one of these fields
--     \29      items of a term: models, caps, parents; details of its expiry, which are separated by \31 elsewhere
--   call: its conditions
--     \30  conditions
--     \31    terms of the plan, the last condition
--     \29    models, one condition
--
-- Around these, tabs separate the parts of a journal entry, of a reply and of a first answer that is kept; \31
-- separates the details of an entry, and the ids or windows in a refusal.
local function split(text, separator)
  local items = {}
  if text ~= '' then
    for item in string.gmatch(text .. separator, '([^' .. separator .. ']*)' .. separator) do
      items[#items + 1] = item
    end
  end
  return items
end
