-- Creates a group where it is missing, with the stream.
-- KEYS[1]: the stream
-- ARGV[1]: group; ARGV[2]: the id after which it begins
-- Returns 1 if it was created, 0 if it was there: another worker may have been faster.
-- A server that is out of memory lets a script go on whose first write needs none. PERSIST is that write. It is the
-- groups that make room there, and on its own the server would refuse even to say that a group exists.
redis.call('PERSIST', KEYS[1])
local created = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], ARGV[2], 'MKSTREAM')
if not created.err then
  return 1
end
if string.find(created.err, 'BUSYGROUP', 1, true) then
  return 0
end
return created
