-- Tells how far a group is on a stream, and what was added to it and deleted from it.
-- KEYS[1]: the stream
-- ARGV[1]: group
-- Returns {added, length, id of the first entry or '', last id, highest deleted id, entries read or -1, last delivered
-- id}; nil where the stream or the group is missing.
local function value_of(pairs, name)
  for index = 1, #pairs, 2 do
    if pairs[index] == name then
      return pairs[index + 1]
    end
  end
end

local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err then
  return false
end
for _, group in ipairs(groups) do
  if value_of(group, 'name') == ARGV[1] then
    local stream = redis.call('XINFO', 'STREAM', KEYS[1])
    local first = value_of(stream, 'first-entry')
    return {
      value_of(stream, 'entries-added'), value_of(stream, 'length'), first and first[1] or '',
      value_of(stream, 'last-generated-id'), value_of(stream, 'max-deleted-entry-id'),
      value_of(group, 'entries-read') or -1, value_of(group, 'last-delivered-id')}
  end
end
return false
