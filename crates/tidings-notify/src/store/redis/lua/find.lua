-- One event.
--
-- ARGV: user, epoch, number
-- Returns: the event, or nothing
local log = find_log(ARGV[1])
if not log or log.epoch ~= ARGV[2] then
  return false
end
local entry = call('XRANGE', log.events, ARGV[3] .. '-0', ARGV[3] .. '-0')[1]
return entry and event(log, entry) or false
