-- Records how far users have been sent their events.
--
-- ARGV: user, epoch and number of each
-- Returns: 1
for at = 1, #ARGV, 3 do
  local log, seq = find_log(ARGV[at]), tonumber(ARGV[at + 2])
  if log and log.epoch == ARGV[at + 1] and seq <= log.top and seq > log.delivered then
    call('HSET', log.key, 'delivered', seq)
  end
end
return 1
