-- Moves parked entries to the group's dead letters, where the holder still has them.
-- KEYS[1]: the parked entries; KEYS[2]: when they can be taken; KEYS[3]: the group's dead letters
-- ARGV[1]: holder; then for each letter what dead_letter.lua takes
-- Returns a list of 1 (moved) or 0, in the order of the letters. A letter that is stored already and not needed goes.
-- Nothing is removed before its letter is stored. But a server that is out of memory refuses a script whose first write is
-- XADD, and lets one go on whose first write frees memory: so the first one removes a field that is not there.
local kind = redis.call('TYPE', KEYS[3]).ok
if kind ~= 'none' and kind ~= 'stream' then
  return redis.error_reply('WRONGTYPE the key of the dead letters holds a ' .. kind)
end
redis.call('HDEL', KEYS[1], '')
local moved = {}
local index = 2
while index <= #ARGV do
  local id, count = ARGV[index], tonumber(ARGV[index + 1])
  local state = redis.call('HGET', KEYS[1], id .. ':state')
  local held = state and string.match(state, '^%S+ %S+ %S+ (.*)$') == ARGV[1]
  if held and count > 0 then
    redis.call('XADD', KEYS[3], '*', unpack(ARGV, index + 2, index + 1 + count))
  elseif not held and count == 0 then
    redis.call('XDEL', KEYS[3], ARGV[index + 2])
  end
  if held then
    redis.call('HDEL', KEYS[1], id, id .. ':state')
    redis.call('ZREM', KEYS[2], id)
  end
  moved[#moved + 1] = held and 1 or 0
  index = index + 2 + math.max(1, count)
end
return moved
