-- A part of the inbox, newest first. It looks at a bounded number of events, and may have found fewer than
-- are wanted.
--
-- ARGV: user, below which number, most events, most bytes of payloads, how many events to look at, '1' for
--       what is archived, '1' for what is unread only, and the only type or an empty text
-- Returns: nothing when there is no log; otherwise its head, the events, and the number below which to go on,
--         0 when there is no more
local log = find_log(ARGV[1])
if not log then
  return false
end
local below, limit, left, looks = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local archived_only, unread_only, only = ARGV[6] == '1', ARGV[7] == '1', ARGV[8]
local events = {}
if below > log.top + 1 then
  below = log.top + 1
end

-- The next candidates below a number, newest first.
local function candidates()
  if archived_only then
    return call('ZRANGE', log.rows, '(' .. below, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 50)
  end
  if unread_only and below <= log.read + 1 then
    return call('ZRANGE', log.open, '(' .. below, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 50)
  end
  local seqs = {}
  for seq = below - 1, math.max(below - 50, log.first), -1 do
    table.insert(seqs, seq)
  end
  return seqs
end

while looks > 0 and below > log.first do
  local seqs = candidates()
  if #seqs == 0 then
    below = log.first
    break
  end
  looks = looks - #seqs
  for _, seq in ipairs(seqs) do
    seq = tonumber(seq)
    local read, archived = state_of(log, seq)
    if (archived ~= '') == archived_only and (not unread_only or read == '') then
      local entry = call('XRANGE', log.events, seq .. '-0', seq .. '-0')[1]
      if entry and (only == '' or entry[2][2] == only) then
        left = left - #entry[2][4]
        if #events == limit or (left < 0 and tonumber(ARGV[9]) + #events > 0) then
          return { head(log), events, seq + 1, 1 }
        end
        table.insert(events, event(log, entry))
      end
    end
    below = seq
  end
end
return { head(log), events, below > log.first and below or 0, 0 }
