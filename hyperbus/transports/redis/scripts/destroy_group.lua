-- Removes a group with what is kept for it, or, while much is pending in it, a page of that.
-- KEYS[1]: the stream; KEYS[2..]: the keys kept for the group
-- ARGV[1]: group; ARGV[2]: how many pending entries are a page
-- Returns 1 if the group was there, 0 if not, 2 if a page was removed and the script is to be run again.
-- XGROUP DESTROY frees the pending list at once: a million entries hold the server up for 50 ms.
local page = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[2])
if page.err and not string.find(page.err, 'NOGROUP', 1, true) then
  return page
end
if not page.err and #page == tonumber(ARGV[2]) then
  local ids = {}
  for index, entry in ipairs(page) do
    ids[index] = entry[1]
  end
  redis.call('XACK', KEYS[1], ARGV[1], unpack(ids))
  return 2
end
local destroyed = 0
if not page.err then
  destroyed = redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
end
redis.call('UNLINK', unpack(KEYS, 2))
return destroyed
