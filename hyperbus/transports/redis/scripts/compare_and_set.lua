-- Stores a value if the record holds what is expected.
-- KEYS[1]: the record
-- ARGV[1]: '1' if ARGV[2] is expected, '0' if the record has to be absent; ARGV[2]: the expected value
-- ARGV[3]: '1' to store ARGV[4], '0' to delete; ARGV[4]: the value; ARGV[5]: milliseconds to live, or ''
-- Returns 1 if it was done, else 0.
local held = redis.call('GET', KEYS[1])
if ARGV[1] == '1' then
  if held ~= ARGV[2] then return 0 end
elseif held then
  return 0
end
-- A server that is out of memory lets a script go on whose first write needs none. PERSIST is that write: heartbeats and
-- leases are small, and without them nobody would take over what is pending, and make room.
redis.call('PERSIST', KEYS[1])
if ARGV[3] == '0' then
  redis.call('DEL', KEYS[1])
elseif ARGV[5] == '' then
  redis.call('SET', KEYS[1], ARGV[4])
else
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
end
return 1
