-- The consumers of a group that are alive or hold a claim.
--
-- ARGV: stream, group
-- Returns: nothing when there is no such group, or name, '1' when it is alive, and number of messages
--         that it holds, of each
local group = find_group(ARGV[1], ARGV[2])
if not group then
  return false
end
local pending, is_alive = {}, {}
for _, consumer in ipairs(call('ZRANGE', group.member, '(' .. now(), '+inf', 'BYSCORE')) do
  pending[consumer], is_alive[consumer] = 0, true
end
local function hold(consumer, messages)
  pending[consumer] = (pending[consumer] or 0) + messages
end
for _, packed in ipairs(call('HVALS', group.lease)) do
  local lease = unpack_lease(nil, packed)
  hold(lease.consumer, open_count(lease))
end
for _, member in ipairs(call('ZRANGE', group.held, 0, -1)) do
  local retry = find_retry(group, member)
  if retry and retry.claim then
    hold(retry.consumer, 1)
  end
end
local reply = {}
for consumer, messages in pairs(pending) do
  table.insert(reply, consumer)
  table.insert(reply, is_alive[consumer] and '1' or '0')
  table.insert(reply, messages)
end
return reply
