-- Creates a group, and its stream, unless they exist.
--
-- ARGV: stream, group, birth of a new stream, start, its value
-- Returns: nothing, or the head when the start is ahead of it
local name, group = ARGV[1], ARGV[2]
local stream = find_stream(name)
if stream and find_group(name, group) then
  return false
end
local cursor = position(stream, ARGV[4], ARGV[5])
if not cursor then
  return stream and stream.head or 0
end
find_or_create_stream(name, ARGV[3])
call('ZADD', stream_key('groups', name), 0, group)
call('HSET', group_key('group', name, group), 'cursor', cursor, 'dead_lettered', 0,
  'lost_to_trim', 0)
return false
