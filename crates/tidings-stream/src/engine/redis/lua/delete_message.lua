-- Deletes a message. Those that share its entry live on apart, because no entry can be changed. If it waits for
-- an attempt or for its ordering key, the next claim of the group finds it gone.
--
-- ARGV: stream, message
-- Returns: 1, or 0 when there is none
local name, number = ARGV[1], tonumber(ARGV[2])
local stream = find_stream(name)
if not stream or number < stream.tail then
  return 0
end
local time = now()
for _, each in ipairs(call('ZRANGE', stream_key('groups', name), 0, -1)) do
  local group = find_group(name, each)
  local retry = group and find_retry(group, padded(number))
  if retry and not retry.claim then
    retry.due = time
    save_retry(group, number, retry)
  end
end
wake(name)
local first, appended_at, fields
-- A large one is alone, and is not read.
local large = call('ZRANGE', stream.large, number, number, 'BYSCORE')[1]
if large then
  first, appended_at, fields = number, string.match(large, ':(%d+)$'), {}
  call('ZREM', stream.large, large)
else
  first, appended_at, fields = find_entry(stream.log, number)
end
if not first then
  return call('ZREMRANGEBYSCORE', stream.apart, number, number)
end
for at = 1, #fields, 2 do
  local other = first + (at - 1) / 2
  if other ~= number and other >= stream.tail then
    call('ZADD', stream.apart, other, other .. '-' .. appended_at .. '\n' .. #fields[at] .. '\n'
      .. fields[at] .. fields[at + 1])
  end
end
return call('XDEL', stream.log, first .. '-' .. appended_at)
