-- Tells, for every group of a stream, its oldest pending entry and its last delivered one.
-- KEYS[1]: the stream
-- Returns a list of {group, id of the oldest pending entry or '', last delivered id}; empty without the stream.
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err then
  if string.find(groups.err, 'no such key', 1, true) then
    return {}
  end
  return groups
end
local floors = {}
for _, group in ipairs(groups) do
  local name, delivered
  for index = 1, #group, 2 do
    if group[index] == 'name' then name = group[index + 1] end
    if group[index] == 'last-delivered-id' then delivered = group[index + 1] end
  end
  local oldest = redis.call('XPENDING', KEYS[1], name, '-', '+', 1)[1]
  floors[#floors + 1] = {name, oldest and oldest[1] or '', delivered}
end
return floors
