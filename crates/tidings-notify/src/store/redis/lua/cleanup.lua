local CHUNK = 500

-- Removes some events that were stored before a time.
--
-- ARGV: the time
-- Returns: how many were removed, and 1 when there may be more
local user = call('ZRANGE', oldest, '-inf', '(' .. ARGV[1], 'BYSCORE', 'LIMIT', 0, 1)[1]
if not user then
  return { 0, 0 }
end
local log = find_log(user)
if not log then
  call('ZREM', oldest, user)
  return { 0, 1 }
end
local first = log.first
for _, entry in ipairs(call('XRANGE', log.events, '-', '+', 'COUNT', CHUNK)) do
  if tonumber(entry[2][8]) >= tonumber(ARGV[1]) then
    break
  end
  first = tonumber(entry[1]:match('^%d+')) + 1
end
local removed = first - log.first
if trim(log, first) then
  note_change(log)
end
return { removed, 1 }
