-- Removes a consumer that has nothing pending: what it had pending would be lost to the group.
-- KEYS[1]: the stream
-- ARGV[1]: group; ARGV[2]: consumer
-- Returns 1 if it was removed; 0 if it has entries pending, or if it, the group or the stream is not there.
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers.err then
  if string.find(consumers.err, 'NOGROUP', 1, true) or string.find(consumers.err, 'no such key', 1, true) then
    return 0
  end
  return consumers
end
for _, consumer in ipairs(consumers) do
  local pending, name
  for index = 1, #consumer, 2 do
    if consumer[index] == 'name' then name = consumer[index + 1] end
    if consumer[index] == 'pending' then pending = consumer[index + 1] end
  end
  if name == ARGV[2] and pending == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
    return 1
  end
end
return 0
