-- Notes that consumers are alive, or have gone.
--
-- ARGV: for how many milliseconds, 0 when they have gone; then stream, group and name of each
local ttl = tonumber(ARGV[1])
local time = now()
for at = 2, #ARGV, 3 do
  local group = find_group(ARGV[at], ARGV[at + 1])
  if group and ttl == 0 then
    call('ZREM', group.member, ARGV[at + 2])
  elseif group then
    call('ZADD', group.member, time + ttl, ARGV[at + 2])
    call('ZREMRANGEBYSCORE', group.member, '-inf', time)
    -- When no member is alive any more, nothing is left.
    local last = call('ZRANGE', group.member, -1, -1, 'WITHSCORES')[2]
    call('PEXPIREAT', group.member, last)
  end
end
