-- Moves pending entries to the group's parked ones, where the consumer still owns them.
-- KEYS[1]: the stream; KEYS[2]: the parked entries; KEYS[3]: when they can be taken
-- ARGV[1]: group; ARGV[2]: consumer; then for each entry: id, packed fields, tries, first time, due time
-- Returns a list of 1 (parked) or 0, in the order of the entries.
-- A parked entry has two fields in KEYS[2]: <id> holds its packed fields, <id>:state "tries first due holder".
-- The first write is HSET: a server that is out of memory refuses it, and then nothing is acked.
for index, wanted in ipairs({false, 'hash', 'zset'}) do
  local kind = wanted and redis.call('TYPE', KEYS[index]).ok
  if wanted and kind ~= 'none' and kind ~= wanted then
    return redis.error_reply('WRONGTYPE a key of the parked entries holds a ' .. kind)
  end
end
local parked = {}
for index = 3, #ARGV, 5 do
  local id = ARGV[index]
  local done = 0
  if redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2])[1] then
    local state = ARGV[index + 2] .. ' ' .. ARGV[index + 3] .. ' ' .. ARGV[index + 4] .. ' '
    local stored = redis.pcall('HSET', KEYS[2], id, ARGV[index + 1], id .. ':state', state)
    if type(stored) == 'number' then
      local acked = redis.pcall('ZADD', KEYS[3], ARGV[index + 4], id)
      if type(acked) == 'number' then
        acked = redis.pcall('XACK', KEYS[1], ARGV[1], id)
      end
      if type(acked) ~= 'number' then
        -- refused, as by an ACL: an entry that is both pending and parked would be handled twice
        redis.pcall('HDEL', KEYS[2], id, id .. ':state')
        redis.pcall('ZREM', KEYS[3], id)
        return acked
      end
      done = 1
    elseif not string.find(stored.err, 'OOM', 1, true) then
      return stored
    end
  end
  parked[#parked + 1] = done
end
return parked
