-- Appends an entry, unless its event was appended within the window.
-- KEYS[1]: the stream; KEYS[2]: what remembers the event
-- ARGV[1]: the window in milliseconds; ARGV[2]: field; ARGV[3]: body
-- Returns the id of the entry that is there now.
-- The XADD is the first write: a server that is out of memory, or a key that is no stream, refuses the whole script.
local known = redis.call('GET', KEYS[2])
if known then
  -- A write also for a repeat: a WAIT that follows covers the first entry only if this connection wrote after it.
  redis.call('PEXPIRE', KEYS[2], ARGV[1])
  return known
end
local id = redis.call('XADD', KEYS[1], '*', ARGV[2], ARGV[3])
redis.call('SET', KEYS[2], id, 'PX', ARGV[1])
return id
