-- Removes parked entries, where the holder still has them.
-- KEYS[1]: the parked entries; KEYS[2]: when they can be taken
-- ARGV[1]: holder; then entry ids
-- Returns a list of 1 (removed) or 0, in the order of the ids.
local removed = {}
for index = 2, #ARGV do
  local id = ARGV[index]
  local state = redis.call('HGET', KEYS[1], id .. ':state')
  local held = state and string.match(state, '^%S+ %S+ %S+ (.*)$') == ARGV[1]
  if held then
    redis.call('HDEL', KEYS[1], id, id .. ':state')
    redis.call('ZREM', KEYS[2], id)
  end
  removed[#removed + 1] = held and 1 or 0
end
return removed
