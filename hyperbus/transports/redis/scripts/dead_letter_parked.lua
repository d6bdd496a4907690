-- Moves parked entries to the group's dead letters, where the holder still has them.
-- KEYS[1]: the parked entries; KEYS[2]: when they can be taken; KEYS[3]: the group's dead letters
-- ARGV[1]: holder; then for each letter: entry id, number of words, the words to XADD
-- Returns a list of 1 (moved) or 0, in the order of the letters.
-- The HDEL comes first: a server that is out of memory refuses a script whose first write is XADD, but lets one go on
-- whose first write frees memory. What could still refuse the XADD is looked at before.
local kind = redis.call('TYPE', KEYS[3]).ok
if kind ~= 'none' and kind ~= 'stream' then
  return redis.error_reply('WRONGTYPE the key of the dead letters holds a ' .. kind)
end
local moved = {}
local index = 2
while index <= #ARGV do
  local id, count = ARGV[index], tonumber(ARGV[index + 1])
  local state = redis.call('HGET', KEYS[1], id .. ':state')
  local held = state and string.match(state, '^%S+ %S+ %S+ (.*)$') == ARGV[1]
  if held then
    redis.call('HDEL', KEYS[1], id, id .. ':state')
    redis.call('ZREM', KEYS[2], id)
    redis.call('XADD', KEYS[3], '*', unpack(ARGV, index + 2, index + 1 + count))
  end
  moved[#moved + 1] = held and 1 or 0
  index = index + 2 + count
end
return moved
