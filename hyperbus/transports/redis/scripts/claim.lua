-- Moves pending entries from one consumer to another, where the first still owns them.
-- KEYS[1]: the stream
-- ARGV[1]: group; ARGV[2]: the new consumer; ARGV[3]: the owner; ARGV[4..]: entry ids
-- Returns a list of {entry id, fields, delivery count}, in the order of the ids.
-- XCLAIM takes a deleted entry out of the pending list and leaves it out of its reply.
local claimed = {}
for index = 4, #ARGV do
  local id = ARGV[index]
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[3])[1]
  if pending then
    local entry = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id)[1]
    if entry then
      claimed[#claimed + 1] = {entry[1], entry[2], pending[4] + 1}
    end
  end
end
return claimed
