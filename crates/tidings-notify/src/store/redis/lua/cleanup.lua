local CHUNK = 500

-- Removes some events that were stored before a time.
--
-- ARGV: the time, '1' to keep what is unread, and how many logs to pass over
-- Returns: how many were removed, 0 when the log is to be passed over, or nothing when there is no other
local user = call('ZRANGE', oldest, '-inf', '(' .. ARGV[1], 'BYSCORE', 'LIMIT', ARGV[3], 1)[1]
if not user then
  return false
end
local log = find_log(user)
if not log then
  call('ZREM', oldest, user)
  return 0
end
local first = log.first
for _, entry in ipairs(call('XRANGE', log.events, '-', '+', 'COUNT', CHUNK)) do
  if tonumber(entry[2][8]) >= tonumber(ARGV[1]) then
    break
  end
  first = tonumber(entry[1]:match('^%d+')) + 1
end
first = before_unread(log, first, ARGV[2], CHUNK)
local removed = first - log.first
if removed > 0 and trim(log, first) then
  note_change(log)
end
return removed
