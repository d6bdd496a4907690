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
if ARGV[3] == '0' then
  redis.call('DEL', KEYS[1])
elseif ARGV[1] == '1' and ARGV[2] == ARGV[4] and ARGV[5] ~= '' then
  redis.call('PEXPIRE', KEYS[1], ARGV[5]) -- the same value lives on: a full server takes this, and no SET
elseif ARGV[5] == '' then
  redis.call('SET', KEYS[1], ARGV[4])
else
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
end
return 1
