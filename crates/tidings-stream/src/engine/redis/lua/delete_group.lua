-- Deletes a group and what it has pending.
--
-- ARGV: stream, group
-- Returns: 1, or 0 when there is none
local group = find_group(ARGV[1], ARGV[2])
if not group then
  return 0
end
drop_pending(group)
call('UNLINK', group.key, group.member)
call('ZREM', stream_key('groups', ARGV[1]), ARGV[2])
return 1
