-- Moves pending entries from one consumer to another, where the first still owns them.
-- KEYS[1]: the stream
-- ARGV[1]: group; ARGV[2]: the new consumer; ARGV[3]: the owner; ARGV[4]: "1" to end at the first entry that somebody
-- else holds; ARGV[5..]: entry ids
-- Returns a list of {entry id, fields, delivery count}, in the order of the ids.
-- XCLAIM takes a deleted entry out of the pending list and leaves it out of its reply.
local claimed = {}
for index = 5, #ARGV do
  local id = ARGV[index]
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  if pending and pending[2] ~= ARGV[3] then
    if ARGV[4] == '1' then break end
  elseif pending then
    local entry = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id)[1]
    if entry then
      claimed[#claimed + 1] = {entry[1], entry[2], pending[4] + 1}
    end
  end
end
return claimed
