-- The keys. A lease is a text of fixed length, and no user's name has a control character.
local call = redis.call
local root = KEYS[1]
local WIDTH = 16
local leases, users, transitions = root .. ':lease', root .. ':user', root .. ':transition'
local EPOCH, NUMBER = '\31epoch', '\31number'

-- The version of a lease that has ended: no update has it.
local ENDED = '9007199254740992'

local function lease_key(lease)
  return root .. ':lease:' .. lease
end

local function of_key(lease)
  return root .. ':of:' .. lease
end

-- Milliseconds since 1970, by the server's clock: the same for all clients.
local function now()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Calls for each of the leases of a user.
local function each_lease(packed, found)
  for at = 1, #packed, WIDTH do
    found(packed:sub(at, at + WIDTH - 1))
  end
end
