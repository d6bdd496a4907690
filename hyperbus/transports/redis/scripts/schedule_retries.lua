-- Writes delivery count and due time of pending entries, where the consumer still owns them.
-- Their idle time starts again: Redis 8.4 and newer keep pending entries in the order of their idle times, and to write
-- one that is not the youngest makes them walk past all younger ones, 4 ms with 300,000 pending.
-- KEYS[1]: the stream; KEYS[2]: the group's retries
-- ARGV[1]: group; ARGV[2]: consumer; then triples: entry id, delivery count, due time
-- Returns a list of 1 (written) or 0, in the order of the triples.
-- The claim comes first: a server that is out of memory refuses a script whose first write is ZADD, but lets one go on
-- whose first write is XCLAIM. What could still refuse the ZADD is looked at before.
local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'none' and kind ~= 'zset' then
  return redis.error_reply('WRONGTYPE the key of the retries holds a ' .. kind)
end
local written = {}
for index = 3, #ARGV, 3 do
  local id = ARGV[index]
  local owned = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2])[1]
  local claimed = owned and redis.call(
    'XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'RETRYCOUNT', ARGV[index + 1], 'JUSTID')
  if claimed and #claimed > 0 then
    redis.call('ZADD', KEYS[2], ARGV[index + 2], id)
    written[#written + 1] = 1
  else
    written[#written + 1] = 0
  end
end
-- Whoever acked an entry may have died before dropping its schedule: each call looks at as many as it added, and more.
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, #written + 9)) do
  if #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1) == 0 then
    redis.call('ZREM', KEYS[2], id)
  end
end
return written
