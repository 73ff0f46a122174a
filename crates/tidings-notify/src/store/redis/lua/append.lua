-- Appends events to the logs of users, all or none.
--
-- ARGV: most events of a log, '1' to keep what is unread, run of the server or an empty text, how many users;
--       for each user: name, and an epoch for a log that has none; then for each event: which user, type,
--       payload, timestamp, and key, which is empty if there is none
-- Returns: for each user the epoch, and the number of the last event
local max = tonumber(ARGV[1])
-- In another run a log begins another epoch with its first append: an old cursor is a gap then.
local run = run_of(ARGV[3])
local stored_at = now()
local users = tonumber(ARGV[4])
local logs, reply = {}, {}
for place = 1, users do
  local user, epoch = ARGV[3 + 2 * place], ARGV[4 + 2 * place]
  local log = find_log(user)
  if not log then
    -- There is something only if the log was lost and the rest was not.
    call('UNLINK', key_of('event', user), key_of('row', user), key_of('open', user), key_of('state', user),
      key_of('mark', user), key_of('keyed', user))
    call('HSET', key_of('log', user), 'epoch', epoch, 'run', run, 'first', 1, 'top', 0, 'delivered', 0,
      'seen', 0, 'revision', 0, 'read', 0, 'stored', 0, 'latest', 0)
    log = find_log(user)
  end
  if log.run ~= run then
    log.epoch, log.run = epoch, run
  end
  log.stored = math.max(log.stored, stored_at)
  logs[place] = log
end
for at = 5 + 2 * users, #ARGV, 5 do
  local log = logs[tonumber(ARGV[at])]
  local seq, timestamp, name = log.top + 1, tonumber(ARGV[at + 3]), ARGV[at + 4]
  log.top = seq
  -- The first of all has no earlier one to be compared with: times may be before 1970.
  log.latest = (seq == log.first) and timestamp or math.max(log.latest, timestamp)
  if seq == log.first then
    call('ZADD', oldest, log.stored, log.user)
  end
  if name == '' then
    call('XADD', log.events, seq .. '-0', 't', ARGV[at + 1], 'p', ARGV[at + 2], 'a', ARGV[at + 3],
      's', log.stored, 'l', log.latest)
  else
    for earlier in (call('HGET', log.keyed, name) or ''):gmatch('%d+') do
      local read = state_of(log, tonumber(earlier))
      set_state(log, tonumber(earlier), read, string.format('%.0f', log.stored))
    end
    call('HSET', log.keyed, name, ',' .. seq .. ',')
    log.revision = log.revision + 1
    call('XADD', log.events, seq .. '-0', 't', ARGV[at + 1], 'p', ARGV[at + 2], 'a', ARGV[at + 3],
      's', log.stored, 'l', log.latest, 'k', name)
  end
end
for place, log in ipairs(logs) do
  call('HSET', log.key, 'epoch', log.epoch, 'run', log.run, 'top', log.top, 'stored', log.stored,
    'latest', log.latest, 'revision', log.revision)
  if log.top - log.first >= max then
    local first = before_unread(log, log.top - max + 1, ARGV[2], #ARGV)
    if first > log.first then
      trim(log, first)
    end
  end
  reply[2 * place - 1], reply[2 * place] = log.epoch, log.top
end
note_changes(logs)
return reply
