-- The cursor before the first event that is stamped at a time or later: of the events before it, none is.
--
-- ARGV: user, time
-- Returns: nothing when there is no log; otherwise its epoch, and the number
local log = find_log(ARGV[1])
if not log then
  return false
end
local time, low, high = tonumber(ARGV[2]), log.first, log.top + 1
while low < high do
  local middle = math.floor((low + high) / 2)
  local entry = call('XRANGE', log.events, middle .. '-0', middle .. '-0')[1]
  if entry and tonumber(entry[2][10]) < time then
    low = middle + 1
  else
    high = middle
  end
end
return { log.epoch, low - 1 }
