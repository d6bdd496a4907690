-- Hides parked entries from others for longer, where the holder still has them.
-- KEYS[1]: the parked entries; KEYS[2]: when they can be taken
-- ARGV[1]: holder; ARGV[2]: until when they are hidden; then entry ids
-- Returns a list of 1 (renewed) or 0, in the order of the ids.
local renewed = {}
for index = 3, #ARGV do
  local id = ARGV[index]
  local state = redis.call('HGET', KEYS[1], id .. ':state')
  local held = state and string.match(state, '^%S+ %S+ %S+ (.*)$') == ARGV[1]
  if held then
    -- A server that is out of memory lets a script go on whose first write needs none. PERSIST is that write.
    redis.call('PERSIST', KEYS[1])
    redis.call('ZADD', KEYS[2], ARGV[2], id)
  end
  renewed[#renewed + 1] = held and 1 or 0
end
return renewed
