-- Adds members to a sorted set with the server's time, or gives it to those that are there.
-- KEYS[1]: the sorted set
-- ARGV[1]: seconds after which a member counts as new again; then members
-- Returns how many members were new.
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local new = 0
for index = 2, #ARGV do
  local before = redis.call('ZSCORE', KEYS[1], ARGV[index])
  if not before or tonumber(now) - tonumber(before) > tonumber(ARGV[1]) then
    new = new + 1
  end
  redis.call('ZADD', KEYS[1], now, ARGV[index])
end
return new
