-- Names of keys, and the time.
--
-- KEYS[1] is the root that all keys of an engine begin with. The script puts the rest together by
-- itself: which groups a stream has is known to the server alone. The root is a hash tag, so that in
-- a cluster all of them are where this script runs. The text after it cannot be mistaken: no name has
-- a control character, so the separator between the names of a stream and a group is in neither.
local call = redis.call
local root = KEYS[1]

local function stream_key(kind, stream)
  return root .. ':' .. kind .. ':' .. stream
end

local function group_key(kind, stream, group)
  return root .. ':' .. kind .. ':' .. stream .. '\31' .. group
end

-- Milliseconds since 1970, by the server's clock: the same for all clients.
local function now()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Wakes the consumers of a stream in all processes. A user that may not use channels gets an error, which
-- must not end the script: consumers poll then. Returns whether that worked.
local function wake(stream)
  return type(redis.pcall('PUBLISH', root .. ':wake', stream)) == 'number'
end

-- The same if any consumer has found nothing more since that was done last: while all are at work, nothing is
-- published. Each of those that are woken claims, and so is woken again.
local function wake_waiting(stream)
  local key = stream_key('stream', stream)
  if call('HGET', key, 'awaited') and wake(stream) then
    call('HDEL', key, 'awaited')
  end
end
