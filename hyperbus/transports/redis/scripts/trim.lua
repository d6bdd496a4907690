-- Deletes the oldest entries of a stream, about as many as allowed.
-- KEYS[1]: the stream
-- ARGV[1]: the lowest id that stays; ARGV[2]: how many may be deleted
-- Returns how many were deleted.
-- The server cuts whole blocks first, which is cheap and knows a limit. The exact cut knows none, so it is made only
-- when the limit is not what stopped the first one: then what is left is less than a block.
local limit = tonumber(ARGV[2])
local cut = redis.call('XTRIM', KEYS[1], 'MINID', '~', ARGV[1], 'LIMIT', limit)
if cut * 2 <= limit then
  cut = cut + redis.call('XTRIM', KEYS[1], 'MINID', '=', ARGV[1])
end
return cut
