-- Appends events to the logs of users, all or none.
--
-- ARGV: most events of a log, '1' to keep what is unread, run of the server or an empty text, then for each
--       event: user, an epoch for a log that has none, type, payload, timestamp, and key, which is empty if
--       there is none
-- Returns: epoch and number of each
local max = tonumber(ARGV[1])
-- In another run a log begins another epoch with its first append: an old cursor is a gap then.
local run = run_of(ARGV[3])
local stored_at = now()
local logs, order, reply = {}, {}, {}
for at = 4, #ARGV, 6 do
  local user, epoch = ARGV[at], ARGV[at + 1]
  local log = logs[user]
  if not log then
    log = find_log(user)
    if not log then
      call('HSET', key_of('log', user), 'epoch', epoch, 'run', run, 'first', 1, 'top', 0, 'delivered', 0,
        'seen', 0, 'revision', 0, 'read', 0, 'stored', 0, 'latest', 0)
      log = find_log(user)
    end
    if log.run ~= run then
      log.epoch, log.run = epoch, run
    end
    log.stored = math.max(log.stored, stored_at)
    logs[user] = log
    table.insert(order, log)
  end
  log.top = log.top + 1
  local timestamp, name = tonumber(ARGV[at + 4]), ARGV[at + 5]
  -- The first of all has no earlier one to be compared with: times may be before 1970.
  log.latest = (log.top == log.first) and timestamp or math.max(log.latest, timestamp)
  local add = { 'XADD', log.events, log.top .. '-0', 't', ARGV[at + 2], 'p', ARGV[at + 3], 'a', ARGV[at + 4],
    's', log.stored, 'l', log.latest }
  if log.top == log.first then
    call('ZADD', oldest, log.stored, user)
  end
  if name ~= '' then
    table.insert(add, 'k')
    table.insert(add, name)
    for seq in (call('HGET', log.keyed, name) or ''):gmatch('%d+') do
      local read = state_of(log, tonumber(seq))
      set_state(log, tonumber(seq), read, string.format('%.0f', log.stored))
    end
    call('HSET', log.keyed, name, ',' .. log.top .. ',')
    log.revision = log.revision + 1
  end
  call(unpack(add))
  table.insert(reply, log.epoch)
  table.insert(reply, log.top)
end
for _, log in ipairs(order) do
  call('HSET', log.key, 'epoch', log.epoch, 'run', log.run, 'top', log.top, 'stored', log.stored,
    'latest', log.latest, 'revision', log.revision)
  if log.top - log.first >= max then
    local first = before_unread(log, log.top - max + 1, ARGV[2], #ARGV)
    if first > log.first then
      trim(log, first)
    end
  end
  note_change(log)
end
return reply
