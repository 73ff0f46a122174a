-- Whether a claim of each group would find something.
--
-- ARGV: stream and group of each
-- Returns: a character for each, '1' when it would, or when there is no such group
local time = now()
local ready = {}
for at = 1, #ARGV, 2 do
  local stream, group = ARGV[at], ARGV[at + 1]
  local cursor = call('HGET', group_key('group', stream, group), 'cursor')
  local head = call('HGET', stream_key('stream', stream), 'head')
  local is_ready = not cursor or not head or tonumber(cursor) < tonumber(head)
  if not is_ready then
    local due = call('ZRANGE', group_key('due', stream, group), 0, 0, 'WITHSCORES')[2]
    is_ready = due and tonumber(due) <= time
  end
  table.insert(ready, is_ready and '1' or '0')
end
return table.concat(ready)
