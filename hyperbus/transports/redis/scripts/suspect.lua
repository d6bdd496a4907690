-- Counts that entries are begun alone.
-- KEYS[1]: the group's suspects
-- ARGV[1]: milliseconds until they are forgotten; then entry ids
-- Returns how often each was begun alone, in the order of the ids.
-- A server that is out of memory lets a script go on whose first write needs none. PERSIST is that write.
redis.call('PERSIST', KEYS[1])
local counts = {}
for index = 2, #ARGV do
  counts[#counts + 1] = redis.call('HINCRBY', KEYS[1], ARGV[index], 1)
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return counts
