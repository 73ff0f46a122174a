-- Groups, and what they have pending.
--
-- group:    hash; cursor, the newest message that was claimed; dead_lettered, lost_to_trim
-- lease:    hash by claim; a run of new messages that was claimed at once
-- lease_lo: zset of claims by their first messages
-- retry:    hash by message; one that comes again, or has
-- retry_no: zset of messages of `retry` by their numbers
-- due:      zset by time; claims, after an 'l', and messages of `retry`, less those that wait for their keys
-- held:     zset of messages of `retry` that are claimed, by the time at which that expires
-- keys:     zset of '<ordering key>\0<message>' of messages of `retry` that have one: the first message of a
--           key may be claimed, the others wait for it
-- member:   zset of consumers by the time until which they are taken to be alive

local function find_group(stream, name)
  local key = group_key('group', stream, name)
  local cursor = call('HGET', key, 'cursor')
  if not cursor then
    return nil
  end
  return {
    key = key,
    cursor = tonumber(cursor),
    lease = group_key('lease', stream, name),
    lease_lo = group_key('lease_lo', stream, name),
    retry = group_key('retry', stream, name),
    retry_no = group_key('retry_no', stream, name),
    due = group_key('due', stream, name),
    held = group_key('held', stream, name),
    keys = group_key('keys', stream, name),
    member = group_key('member', stream, name),
  }
end

-- A number as text. Lua writes what has more than fourteen digits with an exponent.
local function text(number)
  return string.format('%.0f', number)
end

-- A message's number as a field and a member: texts of equal length sort as their numbers do.
local function padded(number)
  return string.format('%016.0f', number)
end

-- A lease has a character per message: '1' is open, '0' is settled, or a retry by now.
local function unpack_lease(claim, packed)
  local lo, since, deadline, consumer, open = unpack(cmsgpack.unpack(packed))
  return {
    claim = claim, lo = lo, since = since, deadline = deadline, consumer = consumer, open = open,
  }
end

local function pack_lease(lease)
  return cmsgpack.pack({ lease.lo, lease.since, lease.deadline, lease.consumer, lease.open })
end

local function open_count(lease)
  local _, count = string.gsub(lease.open, '1', '')
  return count
end

local function find_lease(group, claim)
  local packed = call('HGET', group.lease, claim)
  return packed and unpack_lease(claim, packed)
end

local function add_lease(group, lease)
  call('HSET', group.lease, lease.claim, pack_lease(lease))
  call('ZADD', group.lease_lo, lease.lo, lease.claim)
  call('ZADD', group.due, lease.deadline, 'l' .. lease.claim)
end

local function remove_lease(group, lease)
  call('HDEL', group.lease, lease.claim)
  call('ZREM', group.lease_lo, lease.claim)
  call('ZREM', group.due, 'l' .. lease.claim)
end

-- When a message is due that waits for its ordering key: later than after any delay.
local HELD_BACK = 9007199254740991

-- A retry has the claim and the consumer that hold it, false while it waits; and its ordering key in a group
-- that keeps the order, or false.
local function unpack_retry(packed)
  local attempts, claim, consumer, since, due, last_error, key = unpack(cmsgpack.unpack(packed))
  return {
    attempts = attempts, claim = claim, consumer = consumer, since = since, due = due,
    last_error = last_error, key = key,
  }
end

local function pack_retry(retry)
  return cmsgpack.pack({
    retry.attempts, retry.claim, retry.consumer, retry.since, retry.due, retry.last_error,
    retry.key or false,
  })
end

local function find_retry(group, member)
  local packed = call('HGET', group.retry, member)
  return packed and unpack_retry(packed)
end

local function save_retry(group, number, retry)
  local member = padded(number)
  call('HSET', group.retry, member, pack_retry(retry))
  call('ZADD', group.retry_no, number, member)
  if retry.due < HELD_BACK then
    call('ZADD', group.due, retry.due, member)
  end
  if retry.claim then
    call('ZADD', group.held, retry.due, member)
  else
    call('ZREM', group.held, member)
  end
  if retry.key then
    call('ZADD', group.keys, 0, retry.key .. '\0' .. member)
  end
end

-- The first message that has an ordering key or waits for it.
local function first_of_key(group, key)
  local first = call('ZRANGE', group.keys, '[' .. key .. '\0', '(' .. key .. '\0:', 'BYLEX',
    'LIMIT', 0, 1)[1]
  return first and string.sub(first, #key + 2)
end

-- Takes an ordering key from a message, and returns whether another may be claimed that has waited for it.
local function free_key(group, key, member, time)
  call('ZREM', group.keys, key .. '\0' .. member)
  local first = first_of_key(group, key)
  local retry = first and find_retry(group, first)
  if not retry or retry.due < HELD_BACK then
    return false
  end
  retry.since, retry.due = time, time
  save_retry(group, tonumber(first), retry)
  return true
end

-- Forgets a message, and returns the same.
local function remove_retry(group, member, retry, time)
  call('HDEL', group.retry, member)
  call('ZREM', group.retry_no, member)
  call('ZREM', group.due, member)
  call('ZREM', group.held, member)
  return retry.key and free_key(group, retry.key, member, time) or false
end

-- Calls a command with many arguments, in portions that Lua's stack has room for.
local function call_many(command, key, arguments)
  for from = 1, #arguments, 4000 do
    call(command, key, unpack(arguments, from, math.min(from + 3999, #arguments)))
  end
end

-- Ends a lease that has expired. Each open message becomes a retry with one attempt counted, that may
-- be claimed at once; until it is, the receipt of the lease is still good for it.
local function explode(group, claim)
  local lease = find_lease(group, claim)
  if not lease then
    -- It was removed by hand. It must not be met for ever.
    remove_lease(group, { claim = claim })
    return
  end
  local retries, numbers, due = {}, {}, {}
  local packed = pack_retry({
    attempts = 1, claim = tonumber(claim), consumer = lease.consumer, since = lease.since,
    due = lease.deadline, last_error = false,
  })
  local index = string.find(lease.open, '1', 1, true)
  while index do
    local number = lease.lo + index - 1
    local member = padded(number)
    table.insert(retries, member)
    table.insert(retries, packed)
    table.insert(numbers, number)
    table.insert(numbers, member)
    table.insert(due, lease.deadline)
    table.insert(due, member)
    index = string.find(lease.open, '1', index + 1, true)
  end
  remove_lease(group, lease)
  call_many('HSET', group.retry, retries)
  call_many('ZADD', group.retry_no, numbers)
  call_many('ZADD', group.due, due)
  call_many('ZADD', group.held, due)
end

-- How many messages are claimed, and when the first of these claims expires.
local function in_flight(group, time)
  local count = call('ZCOUNT', group.held, '(' .. time, '+inf')
  local first = call('ZRANGE', group.held, '(' .. time, '+inf', 'BYSCORE', 'LIMIT', 0, 1,
    'WITHSCORES')[2]
  local expiry = tonumber(first) or math.huge
  for _, packed in ipairs(call('HVALS', group.lease)) do
    local lease = unpack_lease(nil, packed)
    if lease.deadline > time then
      count = count + open_count(lease)
      expiry = math.min(expiry, lease.deadline)
    end
  end
  return count, expiry
end

-- The oldest message that a group has yet to finish, appended or not.
local function first_needed(group)
  local needed = group.cursor + 1
  local retry = call('ZRANGE', group.retry_no, 0, 0)[1]
  if retry then
    needed = math.min(needed, tonumber(retry))
  end
  local claim = call('ZRANGE', group.lease_lo, 0, 0)[1]
  local lease = claim and find_lease(group, claim)
  if lease then
    needed = math.min(needed, lease.lo + string.find(lease.open, '1', 1, true) - 1)
  end
  return needed
end

local function drop_pending(group)
  call('UNLINK', group.lease, group.lease_lo, group.retry, group.retry_no, group.due, group.held,
    group.keys)
end
