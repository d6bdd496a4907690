-- Removes a stream in which nothing is left, with all that is kept for its groups but their dead letters.
-- KEYS[1]: the stream; then what is kept for each of its groups
-- ARGV[1]: the highest id that it ever gave out, as it was seen
-- Returns 1 if it is gone; 0 if it holds anything, or something was added meanwhile.
local stream = redis.pcall('XINFO', 'STREAM', KEYS[1])
if stream.err then
  return string.find(stream.err, 'no such key', 1, true) and 1 or 0
end
for index = 1, #stream, 2 do
  local name, value = stream[index], stream[index + 1]
  if (name == 'length' and value ~= 0) or (name == 'last-generated-id' and value ~= ARGV[1]) then
    return 0
  end
end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  for index = 1, #group, 2 do
    if group[index] == 'pending' and group[index + 1] ~= 0 then
      return 0
    end
  end
end
for index = 2, #KEYS do
  if redis.call('TYPE', KEYS[index]).ok == 'hash' and string.find(KEYS[index], ':parked:', 1, true) then
    return 0
  end
end
redis.call('UNLINK', unpack(KEYS))
return 1
