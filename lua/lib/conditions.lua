-- include lib/integer
-- include lib/split

-- Conditions: what a call is made under besides its price. One argument, '' for a plain account. Separated by \30:
--   opens       1 where the document opens new accounts with a bonus or a plan
--   bonus       micro-credits that a new account begins with
--   activation  of the document that opens them so, 0 for one that was not published
--   plan        the account's plan as the caller knows it, '' for none
--   member      the team's member that spends
--   models      model, \29, micro-credits of its part, \29, ...
--   max_concurrent  how many leases of the operation type may be open, '' for any number
--   low_levels  micro-credits, separated by spaces
--   skip_allowance  1 where the allowance is left alone
--   parent      the lease inside which a new one is opened, '' for none
--   terms       of the plan now, see lib/plan_terms; '' unless the script asked for them
local CONDITIONS = '^(%d)\30(%d+)\30(%d+)\30([^\30]*)\30([^\30]*)\30([^\30]*)\30(%d*)\30([^\30]*)\30(%d)\30([^\30]*)' ..
  '\30(.*)$'
local NO_CONDITIONS = {
  opens = false, bonus = 0, activation = 0, plan = '', member = '', models = {}, low_levels = '',
  skip_allowance = false,
}

-- Pairs of model and amount, from text and back.
local function parse_models(text)
  local items, models = split(text, '\29'), {}
  for index = 1, #items, 2 do
    models[#models + 1] = {name = items[index], amount = tonumber(items[index + 1])}
  end
  return models
end

local function format_models(models)
  local items = {}
  for _, model in ipairs(models) do
    items[#items + 1] = model.name
    items[#items + 1] = integer(model.amount)
  end
  return table.concat(items, '\29')
end

local function add_models(models, more)
  for _, model in ipairs(more) do
    local found
    for _, known in ipairs(models) do
      if known.name == model.name then
        known.amount, found = known.amount + model.amount, true
      end
    end
    if not found then
      models[#models + 1] = model
    end
  end
  return models
end

local function parse_conditions(text)
  if text == '' then
    return NO_CONDITIONS
  end
  local opens, bonus, activation, plan, member, models, max_concurrent, low_levels, skip, parent, terms =
    string.match(text, CONDITIONS)
  return {
    opens = opens == '1', bonus = tonumber(bonus), activation = tonumber(activation), plan = plan, member = member,
    models = parse_models(models), max_concurrent = tonumber(max_concurrent), low_levels = low_levels,
    skip_allowance = skip == '1', parent = parent ~= '' and parent or nil, terms = terms ~= '' and terms or nil,
  }
end
