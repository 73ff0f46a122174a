-- The keys, and the log of a user. Numbers, and times in microseconds, are exact in Lua up to 2^53.
local call = redis.call
local root = KEYS[1]
local changed, oldest, meta = root .. ':changed', root .. ':oldest', root .. ':meta'

local function key_of(kind, user)
  return root .. ':' .. kind .. ':' .. user
end

-- What differs between one history of the server's data and the next: given, when the data outlives the
-- server; else the id that replicas compare. A server draws another one when it starts, and when it is promoted, because
-- the newest of the data may be gone then without a sign.
local function run_of(given)
  return given ~= '' and given or call('INFO', 'replication'):match('master_replid:(%x+)')
end

-- What of a log is made, or looked up, when it is first asked for: its keys, and numbers that few need.
local KINDS = {
  rows = 'row', open = 'open', states = 'state', marks = 'mark', keyed = 'keyed',
}
local NUMBERS = { delivered = true, seen = true, read = true }
local lazily = {
  __index = function(log, name)
    local value
    if KINDS[name] then
      value = key_of(KINDS[name], log.user)
    elseif NUMBERS[name] then
      value = tonumber(call('HGET', log.key, name))
    end
    log[name] = value
    return value
  end,
}

-- The log of a user as it was written last, or nil, with these numbers that few need. Everything in it but
-- the epoch, the run and the texts is a number.
local function read_log(user, ...)
  local key = key_of('log', user)
  local found = call('HMGET', key, 'epoch', 'run', 'first', 'top', 'stored', 'latest', 'revision', ...)
  if not found[1] then
    return nil
  end
  local log = {
    user = user, key = key, epoch = found[1], run = found[2], first = tonumber(found[3]), top = tonumber(found[4]),
    stored = tonumber(found[5]), stored_text = found[5], latest = tonumber(found[6]), latest_text = found[6],
    revision = tonumber(found[7]), events = key_of('event', user),
  }
  for at = 1, select('#', ...) do
    log[select(at, ...)] = tonumber(found[7 + at])
  end
  return setmetatable(log, lazily)
end

-- The log of a user, or nil.
local function find_log(user)
  local log = read_log(user, 'delivered', 'seen', 'read')
  -- Events that the server has lost, or that were deleted by hand, are gone like those that are too old.
  if log and call('XLEN', log.events) <= log.top - log.first then
    local left = call('XRANGE', log.events, '-', '+', 'COUNT', 1)[1]
    log.first = left and tonumber(left[1]:match('^%d+')) or log.top + 1
  end
  return log
end

-- How many events above a number are in the inbox and unread. Of those above everything that was marked as
-- read all are unread but those with a state of their own; all others are read, but those in `open`.
local function unread_above(log, above)
  local from = math.max(above, log.read, log.first - 1)
  local unread = 0
  if log.top > from then
    unread = log.top - from - call('ZCOUNT', log.rows, '(' .. from, '+inf')
  end
  return unread + call('ZCOUNT', log.open, '(' .. math.max(above, log.first - 1), '+inf')
end

local function unread(log)
  return unread_above(log, 0)
end

local function unseen(log)
  return unread_above(log, log.seen)
end

local function head(log)
  return {
    log.epoch, log.first, log.top, log.delivered, unread(log), unseen(log), log.revision,
  }
end

-- When an event was read and when it was archived, each an empty text if it was not.
local function state_of(log, seq)
  local own = call('HGET', log.states, seq)
  if own then
    local read, archived = own:match('^(-?%d*)|(-?%d*)$')
    return read, archived
  end
  if seq <= log.read then
    -- The first mark that reached it is the time when it was read.
    local mark = call('ZRANGE', log.marks, seq, '+inf', 'BYSCORE', 'LIMIT', 0, 1)[1]
    return mark and mark:match(':(-?%d+)$') or '', ''
  end
  return '', ''
end

-- An entry of the stream of events as what the client reads.
local function event(log, entry)
  local seq = tonumber(entry[1]:match('^%d+'))
  local read, archived = state_of(log, seq)
  local fields = entry[2]
  return { seq, fields[2], fields[4], fields[6], fields[12] or '', read, archived }
end
