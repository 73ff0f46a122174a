local CHUNK = 500

-- Removes some events that were stored before a time.
--
-- ARGV: the time, '1' to keep what is unread, and time and user of the log that was passed over last, or empty
--       texts
-- Returns: how many were removed, and time and user of the log that is passed over now; or nothing when there
--         is no other
local place = 0
if ARGV[4] ~= '' then
  local rank = call('ZRANK', oldest, ARGV[4])
  -- If it has got another time since, those of its old time come again.
  local is_there = rank and call('ZSCORE', oldest, ARGV[4]) == ARGV[3]
  place = is_there and rank + 1 or call('ZCOUNT', oldest, '-inf', '(' .. ARGV[3])
end
local found = call('ZRANGE', oldest, place, place, 'WITHSCORES')
local user, time = found[1], found[2]
if not user or tonumber(time) >= tonumber(ARGV[1]) then
  return false
end
local log = find_log(user)
if not log then
  call('ZREM', oldest, user)
  return { 0, ARGV[3], ARGV[4] }
end
local first = log.first
for _, entry in ipairs(call('XRANGE', log.events, '-', '+', 'COUNT', CHUNK)) do
  if tonumber(entry[2][8]) >= tonumber(ARGV[1]) then
    break
  end
  first = tonumber(entry[1]:match('^%d+')) + 1
end
first = removable(log, first, ARGV[2], CHUNK)
local removed = first - log.first
if removed > 0 and trim(log, first) then
  note_change(log)
end
if removed > 0 then
  return { removed, ARGV[3], ARGV[4] }
end
return { 0, time, user }
