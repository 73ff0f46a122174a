-- Claims messages for a consumer: those that come again and are due, then new ones.
--
-- ARGV: stream, group, consumer, how many, for how long, number of the claim, which the client draws so
--       that it can release the claim if it does not get this reply, '1' for the order of keys, and how many
--       the group may have claimed at a time, or nothing
-- Returns: nothing if there is no such group, or
--          birth of the stream, first and last new message, milliseconds until more is due (-1: never),
--          and a list: number, attempt and last error of each that comes again, or is claimed in the order
--          of keys
local stream = find_stream(ARGV[1])
local group = stream and find_group(ARGV[1], ARGV[2])
if not group then
  return false
end
local consumer, most = ARGV[3], tonumber(ARGV[4])
local room = math.min(most, MAX_RANGE)
local time = now()
local deadline = time + math.max(1, tonumber(ARGV[5]))
local claim = tonumber(ARGV[6])
local bytes, lost, held_back = 0, 0, 0
local again = {}
local is_bounded = false
if ARGV[8] ~= '' then
  local free = math.max(0, ARGV[8] - in_flight(group, time))
  is_bounded = free < room
  room = math.min(room, free)
end

-- Most messages that are passed over because they wait for their ordering keys.
local MAX_HELD_BACK = 500

local has_large

-- Claims one that comes again, unless it has been trimmed.
local function take(member, packed, retries, due, gone)
  local number = tonumber(member)
  local retry = packed and unpack_retry(packed)
  if number < stream.tail or not retry then
    lost = lost + 1
    table.insert(gone, member)
    if retry and retry.key then
      free_key(group, retry.key, member, time)
    end
    return
  end
  retry.attempts = retry.attempts + 1
  retry.claim, retry.consumer, retry.since, retry.due = claim, consumer, time, deadline
  table.insert(retries, member)
  table.insert(retries, pack_retry(retry))
  table.insert(due, deadline)
  table.insert(due, member)
  table.insert(again, number)
  table.insert(again, retry.attempts)
  table.insert(again, retry.last_error)
  room = room - 1
  if has_large then
    local _
    _, bytes = cut(stream, number, number, bytes)
  end
end

while room > 0 and bytes < MAX_BYTES do
  local members = call('ZRANGE', group.due, '-inf', time, 'BYSCORE', 'LIMIT', 0,
    math.min(room, 1000))
  if #members == 0 then
    break
  end
  local first = members[1]
  if string.sub(first, 1, 1) == 'l' then
    explode(group, string.sub(first, 2))
  else
    -- Up to the first lease: its messages are due before those after it.
    local upto = #members
    for index, member in ipairs(members) do
      if string.sub(member, 1, 1) == 'l' then
        upto = index - 1
        break
      end
    end
    local packed = call('HMGET', group.retry, unpack(members, 1, upto))
    has_large = call('EXISTS', stream.large) == 1
    local retries, due, gone = {}, {}, {}
    for index = 1, upto do
      if bytes >= MAX_BYTES then
        break
      end
      take(members[index], packed[index], retries, due, gone)
    end
    call_many('HSET', group.retry, retries)
    call_many('ZADD', group.due, due)
    call_many('ZADD', group.held, due)
    call_many('HDEL', group.retry, gone)
    for _, key in ipairs({ group.due, group.held, group.retry_no }) do
      call_many('ZREM', key, gone)
    end
  end
end

-- What lies before the tail was trimmed before the group had come to it.
local cursor = math.max(group.cursor, stream.tail - 1)
lost = lost + cursor - group.cursor
local lo, hi = cursor + 1, cursor

-- The headers of the messages of a range that are kept, by their numbers.
local function headers_of(from, to)
  local found = {}
  local function add(first, fields)
    for at = 1, #fields, 2 do
      found[first + (at - 1) / 2] = fields[at]
    end
  end
  local first, _, fields = find_entry(stream.log, from)
  if first then
    add(first, fields)
  end
  for _, entry in ipairs(call('XRANGE', stream.log, from + 1, to)) do
    add(tonumber(string.match(entry[1], '^%d+')), entry[2])
  end
  for _, apart in ipairs(call('ZRANGE', stream.apart, from, to, 'BYSCORE')) do
    local number = tonumber(string.match(apart, '^%d+'))
    found[number] = find(stream, number)
  end
  return found
end

if ARGV[7] == '1' then
  -- Each has a place of its own.
  while room > 0 and bytes < MAX_BYTES and cursor < stream.head and held_back < MAX_HELD_BACK do
    local upto
    local most_more = math.min(room, MAX_HELD_BACK - held_back)
    upto, bytes = cut(stream, cursor + 1, math.min(stream.head, cursor + most_more), bytes)
    local headers = headers_of(cursor + 1, upto)
    for number = cursor + 1, upto do
      local key = headers[number] and ordering_key(headers[number])
      local retry = {
        attempts = 1, claim = claim, consumer = consumer, since = time, due = deadline,
        last_error = false, key = key,
      }
      if not headers[number] then
        lost = lost + 1
      elseif key and first_of_key(group, key) then
        retry.attempts, retry.claim, retry.consumer, retry.due = 0, false, false, HELD_BACK
        held_back = held_back + 1
        save_retry(group, number, retry)
      else
        table.insert(again, number)
        table.insert(again, 1)
        table.insert(again, false)
        room = room - 1
        save_retry(group, number, retry)
      end
    end
    cursor = upto
  end
  lo, hi = cursor + 1, cursor
elseif room > 0 and bytes < MAX_BYTES and cursor < stream.head then
  hi = math.min(stream.head, cursor + math.min(room, MAX_RANGE))
  hi, bytes = cut(stream, lo, hi, bytes)
  add_lease(group, {
    claim = text(claim), lo = lo, since = time, deadline = deadline, consumer = consumer,
    open = string.rep('1', hi - cursor),
  })
  room = room - (hi - cursor)
end

if hi > group.cursor then
  call('HSET', group.key, 'cursor', hi)
end
if lost > 0 then
  call('HINCRBY', group.key, 'lost_to_trim', lost)
end
local wait = -1
if is_bounded and room == 0 then
  local _, expiry = in_flight(group, time)
  wait = expiry < math.huge and expiry - time or -1
-- What turned out to be gone leaves room for more.
elseif bytes >= MAX_BYTES or lost > 0 or held_back >= MAX_HELD_BACK or room == 0 and most > MAX_RANGE then
  wait = 0
elseif room > 0 then
  -- Its consumer waits now.
  call('HSETNX', stream.key, 'awaited', 1)
  local next_due = call('ZRANGE', group.due, 0, 0, 'WITHSCORES')[2]
  wait = next_due and math.max(0, next_due - time) or -1
end
return { stream.birth, lo, hi, wait, again }
