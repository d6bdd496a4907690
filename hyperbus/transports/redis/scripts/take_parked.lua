-- Takes parked entries that are due, and hides them from others for a while.
-- KEYS[1]: the parked entries; KEYS[2]: when they can be taken
-- ARGV[1]: holder; ARGV[2]: now; ARGV[3]: until when they are hidden; ARGV[4]: how many; ARGV[5]: how many bytes
-- Returns a list of {id, packed fields, tries, first time, due time}, earliest first.
local taken = {}
local bytes = 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[2], 'LIMIT', 0, ARGV[4])) do
  if bytes >= tonumber(ARGV[5]) then
    break
  end
  local found = redis.call('HMGET', KEYS[1], id, id .. ':state')
  if found[1] and found[2] and string.match(id, '^%d+%-%d+$') then
    -- What anybody may have written there instead must not keep the entry, and those after it, from being taken.
    local tries, first, due = string.match(found[2], '^(%d+) (%d[%w.+-]*) (%d[%w.+-]*) ')
    if not (tries and tonumber(first) and tonumber(due)) then
      tries, first, due = '0', ARGV[2], ARGV[2]
    end
    -- A server that is out of memory lets a script go on whose first write needs none. PERSIST is that write.
    redis.call('PERSIST', KEYS[1])
    redis.call('HSET', KEYS[1], id .. ':state', tries .. ' ' .. first .. ' ' .. due .. ' ' .. ARGV[1])
    redis.call('ZADD', KEYS[2], ARGV[3], id)
    taken[#taken + 1] = {id, found[1], tries, first, due}
    bytes = bytes + #found[1]
  else
    redis.call('ZREM', KEYS[2], id)
  end
end
return taken
