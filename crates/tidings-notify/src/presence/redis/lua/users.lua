-- The table of users, and the log of those who came online or went offline.

-- Begins another epoch: leases of the one before are lost, and so are marks. The users stay until their
-- instances have written them again.
local function begin_epoch()
  local time = call('TIME')
  local started = string.format('%.0f', (time[1] % 4194304) * 1000000 + time[2] + 1)
  call('DEL', transitions)
  call('HSET', users, EPOCH, started)
  call('HSETNX', users, NUMBER, 0)
  return started
end

-- The epoch of the table. One that was lost begins anew.
local function epoch()
  return call('HGET', users, EPOCH) or begin_epoch()
end

local function record(user, is_online, kept)
  local number = call('HINCRBY', users, NUMBER, 1)
  call('XADD', transitions, 'MAXLEN', kept, number .. '-0', is_online, user)
end

-- The leases of a user but one, without those that were lost.
local function others(packed, lease)
  local rest = {}
  each_lease(packed, function(other)
    if other ~= lease and call('ZSCORE', leases, other) then
      table.insert(rest, other)
    end
  end)
  return table.concat(rest)
end

local function add_user(user, lease, kept)
  call('SADD', of_key(lease), user)
  local packed = call('HGET', users, user) or ''
  local rest = others(packed, lease)
  if packed == '' then
    record(user, 1, kept)
  end
  call('HSET', users, user, rest .. lease)
end

local function remove_user(user, lease, kept)
  call('SREM', of_key(lease), user)
  local packed = call('HGET', users, user)
  if not packed then
    return
  end
  local rest = others(packed, lease)
  if rest ~= '' then
    call('HSET', users, user, rest)
  else
    call('HDEL', users, user)
    record(user, 0, kept)
  end
end

-- Keeps the keys for a day longer than the lease, which begins within a millisecond: without the whole of it, the
-- lease would end up to a millisecond early.
local function renew(lease, ttl)
  local ends = now() + 1 + ttl
  call('ZADD', leases, ends, lease)
  local keep = ends + 86400000
  for _, key in ipairs({ leases, users, transitions, lease_key(lease), of_key(lease) }) do
    call('PEXPIREAT', key, string.format('%.0f', keep))
  end
end
