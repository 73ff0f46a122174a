-- Deletes a stream and its groups. Its publish keys, which belong to its birth, fit no later stream
-- and expire.
--
-- ARGV: stream
-- Returns: 1, or 0 when there is none
local name = ARGV[1]
local stream = find_stream(name)
if not stream then
  return 0
end
local groups = stream_key('groups', name)
for _, each in ipairs(call('ZRANGE', groups, 0, -1)) do
  local group = find_group(name, each)
  if group then
    drop_pending(group)
    call('UNLINK', group.key, group.member)
  end
end
call('UNLINK', stream.key, stream.log, stream.large, stream.apart, groups)
call('ZREM', root .. ':streams', name)
call('SREM', root .. ':bounded', name)
wake(name)
return 1
