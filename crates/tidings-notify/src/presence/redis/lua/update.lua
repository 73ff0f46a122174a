-- Who has come to an instance and who has left it.
--
-- ARGV: lease, time to live in milliseconds, transitions to keep, place, confirmed version, version,
--       number of users who came, those, and those who left
-- Returns: 1, or 0 when the lease is not what the instance takes it to be, and nothing was done
local lease, kept = ARGV[1], ARGV[3]
local key = lease_key(lease)
local current = epoch()
local known = call('HMGET', key, 'version', 'epoch')
local version = tonumber(known[1] or 0)
if version > 0 and version < tonumber(ARGV[5]) and known[2] == current then
  -- A replica was promoted that had not got everything: transitions of others may be missing as well.
  begin_epoch()
  return 0
end
-- A lease that was lost in part, or whose table was, has nothing that could be continued.
if version > 0 and (known[2] ~= current or not call('ZSCORE', leases, lease)) then
  return 0
end
if version < tonumber(ARGV[5]) or version >= tonumber(ARGV[6]) then
  return 0
end
call('HSET', key, 'version', ARGV[6], 'epoch', current, 'place', ARGV[4])
local came = tonumber(ARGV[7])
for at = 8, 7 + came do
  add_user(ARGV[at], lease, kept)
end
for at = 8 + came, #ARGV do
  remove_user(ARGV[at], lease, kept)
end
renew(lease, ARGV[2])
return 1
