-- Tells the highest id that a stream ever gave out, without sending the entries that XINFO STREAM carries.
-- KEYS[1]: the stream
-- Returns the id; nil for a stream that does not exist.
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
if info.err then
  if string.find(info.err, 'no such key', 1, true) then
    return false
  end
  return info
end
for index = 1, #info, 2 do
  if info[index] == 'last-generated-id' then
    return info[index + 1]
  end
end
return false
