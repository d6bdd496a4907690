-- Tells the id of the oldest entry of a stream, without sending the entry.
-- KEYS[1]: the stream
-- Returns the id; nil where there is none.
local entry = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
return entry and entry[1] or false
