-- Events after a number.
--
-- ARGV: user, number, most events, most bytes of payloads
-- Returns: nothing when there is no log; otherwise its head, and the events
local log = find_log(ARGV[1])
if not log then
  return false
end
local from, limit, left = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local events = {}
while limit > #events do
  local entries = call('XRANGE', log.events, '(' .. string.format('%.0f', from) .. '-0', '+', 'COUNT',
    math.min(16, limit - #events))
  if #entries == 0 then
    break
  end
  for _, entry in ipairs(entries) do
    left = left - #entry[2][4]
    if left < 0 and #events > 0 then
      return { head(log), events }
    end
    table.insert(events, event(log, entry))
    from = tonumber(entry[1]:match('^%d+'))
  end
end
return { head(log), events }
