-- Whether a lease has not ended, each asked for once.
local time, known = now(), {}
local function is_alive(lease)
  if known[lease] == nil then
    known[lease] = tonumber(call('ZSCORE', leases, lease) or 0) > time
  end
  return known[lease]
end
