-- Stores the id up to which a group acked everything; never lowers it, unless the stream was made anew.
-- KEYS[1]: the stream; KEYS[2]: the checkpoint
-- ARGV[1]: group
-- Returns the checkpoint; nil where the group is missing.

-- Halves of ids are compared and counted as text: the numbers of Lua do not hold 64 bits.
local function less(a, b)
  local a_time, a_sequence = string.match(a, '^(%d+)-(%d+)$')
  local b_time, b_sequence = string.match(b, '^(%d+)-(%d+)$')
  if a_time == b_time then
    a_time, b_time = a_sequence, b_sequence
  end
  if #a_time ~= #b_time then
    return #a_time < #b_time
  end
  return a_time < b_time
end

local function minus_one(number)
  local head, digit, zeros = string.match(number, '^(%d-)([1-9])(0*)$')
  local result = head .. (digit - 1) .. string.rep('9', #zeros)
  return (string.gsub(result, '^0+(%d)', '%1'))
end

local function below(id)
  local time, sequence = string.match(id, '^(%d+)-(%d+)$')
  if sequence ~= '0' then
    return time .. '-' .. minus_one(sequence)
  end
  return minus_one(time) .. '-18446744073709551615'
end

local function value_of(pairs, name)
  for index = 1, #pairs, 2 do
    if pairs[index] == name then
      return pairs[index + 1]
    end
  end
end

local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err then
  if string.find(groups.err, 'no such key', 1, true) then
    return false
  end
  return groups
end
local floor
for _, group in ipairs(groups) do
  if value_of(group, 'name') == ARGV[1] then
    local oldest = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1)[1]
    floor = oldest and below(oldest[1]) or value_of(group, 'last-delivered-id')
  end
end
if not floor then
  return false
end
local stored = redis.pcall('GET', KEYS[2])
-- Whatever else lies there, another kind of key too, is no checkpoint, and makes way for one.
if type(stored) == 'string' and string.match(stored, '^%d+-%d+$') then
  if stored == floor then
    return stored
  end
  if less(floor, stored) and not less(value_of(redis.call('XINFO', 'STREAM', KEYS[1]), 'last-generated-id'), stored) then
    return stored
  end
end
-- A server that is out of memory lets a script go on whose first write needs none. PERSIST is that write.
redis.call('PERSIST', KEYS[2])
redis.call('SET', KEYS[2], floor)
return floor
