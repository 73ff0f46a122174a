local CHUNK = 500

-- Removes some users of a lease that has ended, and then the lease. Returns whether there is more.
local function reap(kept)
  local time = now()
  local ended = call('ZRANGE', leases, '-inf', time, 'BYSCORE', 'LIMIT', 0, 1)[1]
  if not ended then
    return 0
  end
  local key, of = lease_key(ended), of_key(ended)
  -- It is not renewed any more.
  call('HSET', key, 'version', ENDED)
  for _, user in ipairs(call('SPOP', of, CHUNK)) do
    remove_user(user, ended, kept)
  end
  if call('EXISTS', of) == 0 then
    call('DEL', key)
    call('ZREM', leases, ended)
  end
  return call('ZCOUNT', leases, '-inf', time) > 0 and 1 or 0
end
