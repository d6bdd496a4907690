-- Removes members of a sorted set, where their time is not above a bound.
-- KEYS[1]: the sorted set
-- ARGV[1]: the bound; then members
-- Returns how many were removed.
local removed = 0
for index = 2, #ARGV do
  local time = redis.call('ZSCORE', KEYS[1], ARGV[index])
  if time and tonumber(time) <= tonumber(ARGV[1]) then
    removed = removed + redis.call('ZREM', KEYS[1], ARGV[index])
  end
end
return removed
