-- Counts, and returns how far it has come.
--
-- ARGV: how many more
return redis.call('INCRBY', KEYS[1] .. ':count', ARGV[1])
