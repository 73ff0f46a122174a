-- The transitions after a mark, once some of what leases that have ended leave behind was removed.
--
-- ARGV: transitions to keep, how many to return, and the mark, if there is one: epoch, number
-- Returns: epoch, number of the last one, 1 when more leases have ended, number of the first one that is
--         returned, and of each whether it is to online, and the user
local current = epoch()
local has_ended = reap(ARGV[1])
local last = call('HGET', users, NUMBER)
local first, page = 0, {}
if ARGV[3] == current then
  local from = '(' .. ARGV[4] .. '-0'
  for _, entry in ipairs(call('XRANGE', transitions, from, '+', 'COUNT', ARGV[2])) do
    if first == 0 then
      first = tonumber(entry[1]:match('^%d+'))
    end
    table.insert(page, { tonumber(entry[2][1]), entry[2][2] })
  end
end
return { tonumber(current), tonumber(last), has_ended, first, page }
