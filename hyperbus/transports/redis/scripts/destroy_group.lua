-- Removes a group with what is kept for it.
-- KEYS[1]: the stream; KEYS[2..]: the keys kept for the group
-- ARGV[1]: group
-- Returns 1 if the group was there, else 0.
local destroyed = redis.pcall('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
if type(destroyed) == 'table' then
  if not string.find(destroyed.err, 'requires the key to exist', 1, true) then
    return destroyed
  end
  destroyed = 0
end
redis.call('UNLINK', unpack(KEYS, 2))
return destroyed
