-- Moves pending entries to the group's dead letters, where the consumer still owns them.
-- KEYS[1]: the stream; KEYS[2]: the group's dead letters
-- ARGV[1]: group; ARGV[2]: consumer; then for each letter: entry id, number of words, the words to XADD; or entry id, 0,
-- and the letter's own id, where it is stored already: a script cannot pass on more than some thousand words
-- Returns a list of 1 (moved) or 0, in the order of the letters. A letter that is stored already and not needed goes.
-- Nothing is acked before its letter is stored. But a server that is out of memory refuses a script whose first write is
-- XADD, and lets one go on whose first write is XACK: so the first one acks what no stream has.
local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'none' and kind ~= 'stream' then
  return redis.error_reply('WRONGTYPE the key of the dead letters holds a ' .. kind)
end
redis.call('XACK', KEYS[1], ARGV[1], '0-0')
local moved = {}
local index = 3
while index <= #ARGV do
  local id, count = ARGV[index], tonumber(ARGV[index + 1])
  local owned = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2])[1]
  if owned and count > 0 then
    redis.call('XADD', KEYS[2], '*', unpack(ARGV, index + 2, index + 1 + count))
  elseif not owned and count == 0 then
    redis.call('XDEL', KEYS[2], ARGV[index + 2])
  end
  if owned then
    redis.call('XACK', KEYS[1], ARGV[1], id)
  end
  moved[#moved + 1] = owned and 1 or 0
  index = index + 2 + math.max(1, count)
end
return moved
