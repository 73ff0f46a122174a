-- Groups, and what they have pending.
--
-- group:    hash; cursor, the newest message that was claimed; dead_lettered, lost_to_trim
-- lease:    hash by claim; a run of new messages that was claimed at once
-- lease_lo: zset of claims by their first messages
-- retry:    hash by message; one that comes again, or has
-- retry_no: zset of messages of `retry` by their numbers
-- due:      zset by time; claims, after an 'l', and messages of `retry`
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

-- A retry has the claim and the consumer that hold it; false while it waits.
local function unpack_retry(packed)
  local attempts, claim, consumer, since, due, last_error = unpack(cmsgpack.unpack(packed))
  return {
    attempts = attempts, claim = claim, consumer = consumer, since = since, due = due,
    last_error = last_error,
  }
end

local function pack_retry(retry)
  return cmsgpack.pack({
    retry.attempts, retry.claim, retry.consumer, retry.since, retry.due, retry.last_error,
  })
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
  call('UNLINK', group.lease, group.lease_lo, group.retry, group.retry_no, group.due)
end
