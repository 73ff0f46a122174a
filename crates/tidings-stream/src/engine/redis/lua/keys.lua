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

-- A user that may not use channels gets an error, which must not end the script: consumers poll then.
local function wake(stream)
  redis.pcall('PUBLISH', root .. ':wake', stream)
end
