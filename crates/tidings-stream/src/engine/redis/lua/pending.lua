-- A page of what a group has pending, in no order.
--
-- ARGV: stream, group, after which message, how many at most
-- Returns: nothing when there is no such group, or message, attempts, consumer (nothing while it
--         waits), age, time until it is due, and last error, of each. Of the messages of a page, those
--         that come first in the group are the first ones after the one that was given.
local group = find_group(ARGV[1], ARGV[2])
if not group then
  return false
end
local after, most = tonumber(ARGV[3]), tonumber(ARGV[4])
local time = now()
local reply = {}
local function add(number, attempts, consumer, since, due, last_error)
  table.insert(reply, number)
  table.insert(reply, attempts)
  table.insert(reply, consumer)
  table.insert(reply, math.max(0, time - since))
  table.insert(reply, math.max(0, due - time))
  table.insert(reply, last_error)
end

for _, member in ipairs(call('ZRANGE', group.retry_no, '(' .. text(after), '+inf', 'BYSCORE',
  'LIMIT', 0, most)) do
  local packed = call('HGET', group.retry, member)
  if packed then
    local retry = unpack_retry(packed)
    add(tonumber(member), retry.attempts, retry.consumer, retry.since, retry.due, retry.last_error)
  end
end

-- Leases do not overlap: the last one that begins no later reaches beyond, or none that does.
local claims = call('ZRANGE', group.lease_lo, text(after), '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1)
for _, claim in ipairs(call('ZRANGE', group.lease_lo, '(' .. text(after), '+inf', 'BYSCORE',
  'LIMIT', 0, most)) do
  table.insert(claims, claim)
end
local found = 0
for _, claim in ipairs(claims) do
  local lease = find_lease(group, claim)
  local index = lease and string.find(lease.open, '1', math.max(1, after - lease.lo + 2), true)
  while index and found < most do
    add(lease.lo + index - 1, 1, lease.consumer, lease.since, lease.deadline, false)
    found = found + 1
    index = string.find(lease.open, '1', index + 1, true)
  end
  if found >= most then
    break
  end
end
return reply
