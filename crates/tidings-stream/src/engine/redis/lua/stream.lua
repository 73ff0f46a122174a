-- Streams and their messages.
--
-- stream: hash; birth, which no other stream has, nor a later one of the same name; head, the number
--         of the newest message; tail, that of the oldest kept, head + 1 when none is; oldest_at, when
--         that one was appended, '' when it has to be looked up; max_len, max_age, trim_pending;
--         awaited, if a consumer has found nothing more and was not woken since
-- log:    the messages, a Redis stream; an entry has those of one append that follow each other, up to
--         a number and a size that the client decides on: headers as a field, payload as its value. Its
--         id is <number of the first>-<milliseconds since 1970>
-- large:  zset by number; '<number>:<bytes>:<milliseconds>' of each message with more than LARGE bytes
--         of headers and payload, which has an entry of its own
-- apart:  zset by number; '<number>-<milliseconds>', bytes of headers, headers and payload of each message that
--         shared its entry with one that was deleted: the entry is gone
-- groups: zset of the groups' names
-- <root>:streams, <root>:bounded: zset of the streams' names; set of those that have a bound

-- A claim and a page end with the message that makes them MAX_BYTES. What is not large does
-- not count: MAX_RANGE of them are not more than that.
local LARGE = 1024
local MAX_RANGE = 4096
local MAX_BYTES = 4194304

-- Most messages that one call removes, so that it is short.
local CHUNK = 1000

-- The largest number that Lua writes without an exponent.
local MAX_NUMBER = 99999999999999

local function find_stream(name)
  local key = stream_key('stream', name)
  local row = call('HMGET', key, 'birth', 'head', 'tail', 'oldest_at', 'max_len', 'max_age',
    'trim_pending')
  if not row[1] then
    return nil
  end
  return {
    key = key,
    name = name,
    log = stream_key('log', name),
    large = stream_key('large', name),
    apart = stream_key('apart', name),
    birth = row[1],
    head = tonumber(row[2]),
    tail = tonumber(row[3]),
    oldest_at = tonumber(row[4]),
    max_len = row[5] or '',
    max_age = row[6] or '',
    trim_pending = row[7] or '0',
  }
end

local function find_or_create_stream(name, birth)
  local stream = find_stream(name)
  if stream then
    return stream
  end
  call('ZADD', root .. ':streams', 0, name)
  -- Without its row, nothing of a stream counts: it was deleted by hand.
  call('UNLINK', stream_key('log', name), stream_key('large', name), stream_key('apart', name))
  call('HSET', stream_key('stream', name), 'birth', birth, 'head', 0, 'tail', 1)
  return find_stream(name)
end

-- Writes messages after the newest one, as one entry: headers and payload of each. The caller saves the
-- head.
local function write(stream, time, ...)
  local number = stream.head + 1
  call('XADD', stream.log, number .. '-' .. time, ...)
  local count = select('#', ...) / 2
  local headers, payload = ...
  local bytes = #headers + #payload
  if bytes > LARGE then
    call('ZADD', stream.large, number, number .. ':' .. bytes .. ':' .. time)
  end
  if stream.tail == number then
    stream.oldest_at = time
  end
  stream.head = stream.head + count
end

local function save_head(stream)
  if stream.oldest_at then
    call('HSET', stream.key, 'head', stream.head, 'oldest_at', stream.oldest_at)
  else
    call('HSET', stream.key, 'head', stream.head)
  end
end

-- The entry that a message is in: its first message, when it was appended, and its fields. Nothing if it
-- was removed by hand.
local function find_entry(log, number)
  local entry = call('XREVRANGE', log, number, '-', 'COUNT', 1)[1]
  if entry then
    local first, time = string.match(entry[1], '^(%d+)-(%d+)$')
    if number < first + #entry[2] / 2 then
      return tonumber(first), tonumber(time), entry[2]
    end
  end
end

-- The headers and the payload of a message. Nothing if it was removed.
local function find(stream, number)
  local first, _, fields = find_entry(stream.log, number)
  if first then
    local at = 2 * (number - first) + 1
    return fields[at], fields[at + 1]
  end
  local apart = call('ZRANGE', stream.apart, number, number, 'BYSCORE')[1]
  if apart then
    local length, from = string.match(apart, '^[^\n]*\n(%d+)\n()')
    return string.sub(apart, from, from + length - 1), string.sub(apart, from + length)
  end
end

-- The place of an entry without the fields, for which a large message is not read; a message that is apart is
-- one by itself. If the message was removed it is the next one, if there is one.
local function place(stream, number)
  local large = call('ZRANGE', stream.large, number, number, 'BYSCORE')[1]
  if large then
    return number, tonumber(string.match(large, ':(%d+)$'))
  end
  local first, time = find_entry(stream.log, number)
  if first then
    return first, time
  end
  local entry = call('XRANGE', stream.log, number, '+', 'COUNT', 1)[1]
  if entry then
    first, time = string.match(entry[1], '^(%d+)-(%d+)$')
    first, time = tonumber(first), tonumber(time)
  end
  local apart = call('ZRANGE', stream.apart, number, '+inf', 'BYSCORE', 'LIMIT', 0, 1)[1]
  if apart then
    local apart_number, apart_time = string.match(apart, '^(%d+)-(%d+)')
    if not first or tonumber(apart_number) < first then
      return tonumber(apart_number), tonumber(apart_time)
    end
  end
  return first or number, time
end

-- The ordering key among headers.
local function ordering_key(headers)
  if not string.find(headers, '"ordering-key"', 1, true) then
    return nil
  end
  local is_read, read = pcall(cjson.decode, headers)
  return is_read and type(read) == 'table' and read['ordering-key'] or nil
end

-- The first message of `lo` to `hi` that was appended at a time or later; hi + 1 when there is none.
local function first_at(stream, lo, hi, time)
  local first, past = lo, hi + 1
  while first < past do
    local middle = math.floor((first + past) / 2)
    local _, created_at = place(stream, middle)
    if created_at and created_at < time then
      first = middle + 1
    else
      past = middle
    end
  end
  return first
end

-- The bytes of a message as they count towards MAX_BYTES, and the last message up to `hi` at which
-- those from `lo` on, beside the bytes there are, come to it.
local function cut(stream, lo, hi, bytes)
  for _, entry in ipairs(call('ZRANGE', stream.large, lo, hi, 'BYSCORE')) do
    local number, size = string.match(entry, '^(%d+):(%d+):')
    bytes = bytes + size
    if bytes >= MAX_BYTES then
      return tonumber(number), bytes
    end
  end
  return hi, bytes
end

-- Stores the retention of a stream. Empty texts are no bounds.
local function keep(stream, max_len, max_age, trim_pending)
  if stream.max_len ~= max_len or stream.max_age ~= max_age or stream.trim_pending ~= trim_pending then
    stream.max_len, stream.max_age, stream.trim_pending = max_len, max_age, trim_pending
    call('HSET', stream.key, 'max_len', max_len, 'max_age', max_age, 'trim_pending', trim_pending)
    local is_bounded = max_len ~= '' or max_age ~= ''
    call(is_bounded and 'SADD' or 'SREM', root .. ':bounded', stream.name)
  end
end

-- The group that remembers which dead letters were brought back. It keeps none from being trimmed.
local REDRIVE = 'tidings.redrive'

-- Counts what a group loses when messages before the tail are removed: what it has not claimed, and
-- what waits for another attempt. What a consumer has is counted if it comes again.
local function lose(group, tail)
  local lost = 0
  for _, member in ipairs(call('ZRANGE', group.retry_no, '-inf', '(' .. text(tail), 'BYSCORE',
    'LIMIT', 0, CHUNK)) do
    local retry = find_retry(group, member)
    if retry and not retry.claim then
      remove_retry(group, member, retry, now())
      lost = lost + 1
    end
  end
  if group.cursor < tail - 1 then
    lost = lost + tail - 1 - group.cursor
    call('HSET', group.key, 'cursor', tail - 1)
  end
  if lost > 0 then
    call('HINCRBY', group.key, 'lost_to_trim', lost)
  end
end

-- Removes up to a chunk of what the stream's bounds do not keep, and returns how many messages those
-- were. Unless it is to be exact, it waits until there are some: it asks every group.
local function trim(stream, time, is_exact)
  local max_len, max_age = tonumber(stream.max_len), tonumber(stream.max_age)
  if stream.tail > stream.head or not (max_len or max_age) then
    return 0
  end
  local tail = stream.tail
  local limit = math.min(tail + CHUNK, stream.head + 1)
  local keep = tail
  if max_len then
    keep = math.min(limit, math.max(keep, stream.head + 1 - max_len))
  end
  local oldest = max_age and time - max_age
  local oldest_at = max_age and (stream.oldest_at or select(2, place(stream, tail)) or 0)
  local late = is_exact and 0 or max_age and math.min(math.floor(max_age / 100), 60000)
  local is_old = max_age and oldest_at <= oldest - late
  local slack = is_exact and 0 or max_len and math.min(math.floor(max_len / 100), CHUNK - 1) or 0
  if keep - tail <= slack and not is_old then
    return 0
  end
  local groups = {}
  for _, name in ipairs(call('ZRANGE', stream_key('groups', stream.name), 0, -1)) do
    local group = find_group(stream.name, name)
    if group and (stream.trim_pending == '1' or name == REDRIVE) then
      table.insert(groups, group)
    elseif group then
      limit = math.min(limit, first_needed(group))
    end
  end
  keep = math.min(keep, limit)
  if is_old and keep < limit then
    keep = first_at(stream, keep, limit - 1, oldest + 1)
  end
  if keep <= tail then
    return 0
  end
  -- The entry of the oldest message that is kept stays whole; what comes before the tail counts as gone.
  local first, created_at = keep, nil
  if keep <= stream.head then
    first, created_at = place(stream, keep)
  end
  call('XTRIM', stream.log, 'MINID', '=', first)
  call('ZREMRANGEBYSCORE', stream.large, '-inf', '(' .. keep)
  call('ZREMRANGEBYSCORE', stream.apart, '-inf', '(' .. keep)
  stream.tail, stream.oldest_at = keep, created_at
  call('HSET', stream.key, 'tail', keep, 'oldest_at', created_at or '')
  for _, group in ipairs(groups) do
    lose(group, keep)
  end
  return keep - tail
end
