-- Renews a lease, and removes some of what those that have ended leave behind.
--
-- ARGV: lease, time to live in milliseconds, transitions to keep, version and number of users that it
--       should have
-- Returns: 1, or 0 when it is not so, and the lease was not renewed
local lease = ARGV[1]
local known = call('HMGET', lease_key(lease), 'version', 'epoch')
local is_of_epoch = known[2] == call('HGET', users, EPOCH)
local is_kept = known[1] == ARGV[4] and is_of_epoch
  and call('ZSCORE', leases, lease) and call('SCARD', of_key(lease)) == tonumber(ARGV[5])
if is_kept then
  renew(lease, ARGV[2])
elseif known[1] and is_of_epoch and tonumber(known[1]) < tonumber(ARGV[4]) then
  -- A replica was promoted that had not got everything: transitions of others may be missing as well. The
  -- first instance that notices it begins an epoch, and the leases of all are of the one before.
  begin_epoch()
end
reap(ARGV[3])
return is_kept and 1 or 0
