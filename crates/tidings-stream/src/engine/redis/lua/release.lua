-- Hands back what a claim has taken, with its attempts not counted: its client did not get to know of it.
--
-- ARGV: stream, group, claim
-- Returns: 1, or 0 if there was nothing
local group = find_group(ARGV[1], ARGV[2])
if not group then
  return 0
end
local claim, time, found = ARGV[3], now(), 0
local function put_back(number, retry)
  retry.claim, retry.consumer, retry.since, retry.due = false, false, time, time
  save_retry(group, number, retry)
  found = 1
end

local lease = find_lease(group, claim)
if lease then
  local index = string.find(lease.open, '1', 1, true)
  while index do
    put_back(lease.lo + index - 1, { attempts = 0, last_error = false })
    index = string.find(lease.open, '1', index + 1, true)
  end
  remove_lease(group, lease)
end
-- What lies beyond these comes again when the claim expires, with its attempt counted.
for _, member in ipairs(call('ZRANGE', group.held, 0, 9999)) do
  local retry = find_retry(group, member)
  if retry and retry.claim == tonumber(claim) then
    retry.attempts = retry.attempts - 1
    put_back(tonumber(member), retry)
  end
end
return found
