-- Gives back parked entries with new tries and a new due time, where the holder still has them.
-- KEYS[1]: the parked entries; KEYS[2]: when they can be taken
-- ARGV[1]: holder; then triples: entry id, tries, due time
-- Returns a list of 1 (given back) or 0, in the order of the triples.
local given = {}
for index = 2, #ARGV, 3 do
  local id, tries, due = ARGV[index], ARGV[index + 1], ARGV[index + 2]
  local state = redis.call('HGET', KEYS[1], id .. ':state')
  local first, holder = string.match(state or '', '^%S+ (%S+) %S+ (.*)$')
  local held = holder == ARGV[1]
  if held then
    -- A server that is out of memory lets a script go on whose first write needs none. PERSIST is that write.
    redis.call('PERSIST', KEYS[1])
    redis.call('HSET', KEYS[1], id .. ':state', tries .. ' ' .. first .. ' ' .. due .. ' ')
    redis.call('ZADD', KEYS[2], due, id)
  end
  given[#given + 1] = held and 1 or 0
end
return given
