-- Ends a lease. One that was lost in part gets an end as well, so that its users are removed.
--
-- ARGV: lease
-- Returns: 1
local lease = ARGV[1]
call('HSET', lease_key(lease), 'version', ENDED)
call('ZADD', leases, 0, lease)
return 1
