-- Claims messages for a consumer: those that come again and are due, then new ones.
--
-- ARGV: stream, group, consumer, how many, for how long, number of the claim, which the client draws so
--       that it can release the claim if it does not get this reply
-- Returns: nothing if there is no such group, or
--          birth of the stream, first and last new message, milliseconds until more is due (-1: never),
--          and a list: number, attempt and last error of each that comes again
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
local bytes, lost = 0, 0
local again = {}

local has_large

-- Claims one that comes again, unless it has been trimmed.
local function take(member, packed, retries, due, gone)
  local number = tonumber(member)
  if number < stream.tail or not packed then
    lost = lost + 1
    table.insert(gone, member)
    return
  end
  local retry = unpack_retry(packed)
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
    call_many('HDEL', group.retry, gone)
    call_many('ZREM', group.due, gone)
    call_many('ZREM', group.retry_no, gone)
  end
end

-- What lies before the tail was trimmed before the group had come to it.
local cursor = math.max(group.cursor, stream.tail - 1)
lost = lost + cursor - group.cursor
local lo, hi = cursor + 1, cursor
if room > 0 and bytes < MAX_BYTES and cursor < stream.head then
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
-- What turned out to be gone leaves room for more.
if bytes >= MAX_BYTES or lost > 0 or room == 0 and most > MAX_RANGE then
  wait = 0
elseif room > 0 then
  -- Its consumer waits now.
  call('HSETNX', stream.key, 'awaited', 1)
  local next_due = call('ZRANGE', group.due, 0, 0, 'WITHSCORES')[2]
  wait = next_due and math.max(0, next_due - time) or -1
end
return { stream.birth, lo, hi, wait, again }
