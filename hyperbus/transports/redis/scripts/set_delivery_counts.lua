-- Writes the delivery count of pending entries, where the consumer still owns them.
-- Their idle time starts again: Redis 8.4 and newer keep pending entries in the order of their idle times, and to write
-- one that is not the youngest makes them walk past all younger ones, 4 ms with 300,000 pending.
-- KEYS[1]: the stream
-- ARGV[1]: group; ARGV[2]: consumer; then pairs: entry id, delivery count
-- Returns a list of 1 (written) or 0, in the order of the pairs.
local written = {}
for index = 3, #ARGV, 2 do
  local id = ARGV[index]
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2])[1]
  local claimed = pending and redis.call(
    'XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'RETRYCOUNT', ARGV[index + 1], 'JUSTID')
  written[#written + 1] = (claimed and #claimed > 0) and 1 or 0
end
return written
