-- Moves a group, and drops what it has pending.
--
-- ARGV: stream, group, start, its value
-- Returns: 'moved'; the head when the position is ahead of it; nothing when there is no such group
local name = ARGV[1]
local stream = find_stream(name)
local group = stream and find_group(name, ARGV[2])
if not group then
  return false
end
local cursor = position(stream, ARGV[3], ARGV[4])
if not cursor then
  return stream.head
end
drop_pending(group)
call('HSET', group.key, 'cursor', cursor)
wake(name)
return 'moved'
