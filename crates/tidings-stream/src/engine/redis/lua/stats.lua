-- Figures of a stream and its groups, all of the same moment.
--
-- ARGV: stream
-- Returns: nothing when there is no such stream, or head, tail, and of each group its name, cursor,
--          first message that it has yet to finish, pending messages, dead letters, losses, and how
--          many milliseconds ago the oldest was appended that it has yet to finish (-1: there is none)
local stream = find_stream(ARGV[1])
if not stream then
  return false
end
local reply = { stream.head, stream.tail }
for _, name in ipairs(call('ZRANGE', stream_key('groups', stream.name), 0, -1)) do
  local group = find_group(stream.name, name)
  if group then
    local pending = call('ZCARD', group.retry_no)
    for _, packed in ipairs(call('HVALS', group.lease)) do
      pending = pending + open_count(unpack_lease(nil, packed))
    end
    local counts = call('HMGET', group.key, 'dead_lettered', 'lost_to_trim')
    table.insert(reply, name)
    table.insert(reply, group.cursor)
    local needed = first_needed(group)
    table.insert(reply, needed)
    table.insert(reply, pending)
    table.insert(reply, tonumber(counts[1]) or 0)
    table.insert(reply, tonumber(counts[2]) or 0)
    local _, appended_at = place(stream, math.max(needed, stream.tail))
    table.insert(reply, appended_at and math.max(0, now() - appended_at) or -1)
  end
end
return reply
