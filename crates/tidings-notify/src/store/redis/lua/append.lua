-- Appends events to the logs of users, all or none.
--
-- ARGV: most events of a log, '1' to keep what is unread, run of the server or an empty text, how many users;
--       for each user: name, and an epoch for a log that has none; then for each event: which user, type,
--       payload, timestamp, and key, which is empty if there is none
-- Returns: for each user the epoch, and the number of the last event
local max = tonumber(ARGV[1])
-- In another run a log begins another epoch with its first append: an old cursor is a gap then.
local run = run_of(ARGV[3])
-- Numbers are passed on as texts where there is one: the server is slow at writing them.
local stored_at = now()
local stored_text = string.format('%.0f', stored_at)
local users = tonumber(ARGV[4])
-- How many events more than are appended to a log may be removed from it: after a change of the bound there may be any
-- number of them, in each log.
local EXTRA = math.max(10, math.floor(1000 / users))

local function begin_log(user, epoch)
  -- There is something only if the log was lost and the rest was not.
  call('UNLINK', key_of('event', user), key_of('row', user), key_of('open', user), key_of('state', user),
    key_of('mark', user), key_of('keyed', user))
  call('HSET', key_of('log', user), 'epoch', epoch, 'run', run, 'first', 1, 'top', 0, 'stored', 0, 'latest', 0,
    'revision', 0, 'read', 0, 'seen', 0, 'delivered', 0)
  return read_log(user)
end

local logs, tops, reply = {}, {}, {}
for place = 1, users do
  local user, epoch = ARGV[3 + 2 * place], ARGV[4 + 2 * place]
  local log = read_log(user) or begin_log(user, epoch)
  if log.run ~= run then
    log.epoch, log.run = epoch, run
    call('HSET', log.key, 'epoch', epoch, 'run', run)
  end
  if stored_at > log.stored then
    log.stored, log.stored_text = stored_at, stored_text
  end
  logs[place], tops[place] = log, log.top
end
for at = 5 + 2 * users, #ARGV, 5 do
  local log = logs[tonumber(ARGV[at])]
  local seq, timestamp, name = log.top + 1, tonumber(ARGV[at + 3]), ARGV[at + 4]
  log.top = seq
  -- The first of all has no earlier one to be compared with: times may be before 1970. All others are compared
  -- also with those that are gone.
  if seq == 1 or timestamp > log.latest then
    log.latest, log.latest_text = timestamp, ARGV[at + 3]
  end
  if seq == log.first then
    call('ZADD', oldest, log.stored_text, log.user)
  end
  if name == '' then
    call('XADD', log.events, seq .. '-0', 't', ARGV[at + 1], 'p', ARGV[at + 2], 'a', ARGV[at + 3],
      's', log.stored_text, 'l', log.latest_text)
  else
    for earlier in (call('HGET', log.keyed, name) or ''):gmatch('%d+') do
      local read = state_of(log, tonumber(earlier))
      set_state(log, tonumber(earlier), read, log.stored_text)
    end
    call('HSET', log.keyed, name, ',' .. seq .. ',')
    log.revision = log.revision + 1
    call('HSET', log.key, 'revision', log.revision)
    call('XADD', log.events, seq .. '-0', 't', ARGV[at + 1], 'p', ARGV[at + 2], 'a', ARGV[at + 3],
      's', log.stored_text, 'l', log.latest_text, 'k', name)
  end
end
for place, log in ipairs(logs) do
  call('HSET', log.key, 'top', log.top, 'stored', log.stored_text, 'latest', log.latest_text)
  if log.top - log.first >= max then
    local first = removable(log, log.top - max + 1, ARGV[2], log.top - tops[place] + EXTRA)
    if first > log.first then
      trim(log, first)
    end
  end
  reply[2 * place - 1], reply[2 * place] = log.epoch, log.top
end
note_changes(logs)
return reply
