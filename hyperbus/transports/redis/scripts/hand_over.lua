-- Gives pending entries to another consumer with the delivery counts that are named, where the first still owns them.
-- KEYS[1]: the stream
-- ARGV[1]: group; ARGV[2]: the owner; ARGV[3]: the new consumer; then pairs: entry id, delivery count
-- Returns a list of 1 (handed over) or 0, in the order of the pairs.
local moved = {}
for index = 4, #ARGV, 2 do
  local id = ARGV[index]
  local owned = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2])[1]
  local claimed = owned and redis.call(
    'XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, id, 'RETRYCOUNT', ARGV[index + 1], 'JUSTID')
  moved[#moved + 1] = (claimed and #claimed > 0) and 1 or 0
end
return moved
