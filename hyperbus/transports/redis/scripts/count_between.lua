-- Counts entries of a stream, one page of them, without sending them.
-- KEYS[1]: the stream
-- ARGV[1]: the id to begin after; ARGV[2]: the last id; ARGV[3]: how many may be counted
-- Returns {how many, the id of the last one, or ''}; the page was the last one if that is ''.
-- The server makes the entries for the script all the same, so large ones make the page small.
local first = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], ARGV[2], 'COUNT', 1)[1]
if not first then
  return {0, ''}
end
local size = 64
for _, word in ipairs(first[2]) do
  size = size + #word
end
local page = math.min(tonumber(ARGV[3]), math.max(1, math.min(500, math.floor(262144 / size))))
local entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], ARGV[2], 'COUNT', page)
return {#entries, #entries == page and entries[#entries][1] or ''}
