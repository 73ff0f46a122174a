-- Ends claims, or makes them last.
--
-- ARGV: stream, group, birth of streams that dead letters make, what the headers that dead letters
--       get begin with, then one after the other
--         a, claim, first, last         acknowledged, all from the first message to the last
--         e, claim, first, last, for    claimed for that long from now, at least
--         l, claim, message             released
--         r, claim, message, delay, error, '1' when there is an error
--         d, claim, message, stream, headers    to another stream, with these headers added
--         x, claim, message             trimmed before its body was read: lost
-- Returns: nothing when there is no such group, or a character per message: '1' when the receipt was
--         obeyed, and for 'd' when there was a message to move
local name = ARGV[1]
local group = find_group(name, ARGV[2])
if not group then
  return false
end
local time = now()
local stream = { log = stream_key('log', name), apart = stream_key('apart', name) }
local obeyed = {}
local leases, changed = {}, {}
local letters, order = {}, {}
local dead, lost = 0, 0
local has_returned = false

local function lease_of(claim)
  local lease = leases[claim]
  if lease == nil then
    lease = find_lease(group, claim)
    leases[claim] = lease
  end
  return lease
end

-- Settles messages of a lease; false when one of them is not its to settle.
local function settle_in(lease, first, last)
  if not lease then
    return false
  end
  local from, to = first - lease.lo + 1, last - lease.lo + 1
  local count = to - from + 1
  if from < 1 or to > #lease.open or string.sub(lease.open, from, to) ~= string.rep('1', count) then
    return false
  end
  lease.open = string.sub(lease.open, 1, from - 1) .. string.rep('0', count)
    .. string.sub(lease.open, to + 1)
  changed[lease.claim] = true
  return true
end

-- The retry that a receipt holds.
local function held(claim, number)
  local retry = find_retry(group, padded(number))
  return retry and retry.claim == tonumber(claim) and retry
end

-- Ends the claim of one message, and returns what is known of the message; false if the receipt is stale.
local function end_claim(claim, number)
  if settle_in(lease_of(claim), number, number) then
    return { attempts = 1, last_error = false }
  end
  return held(claim, number)
end

-- Ends the claim of one message for good.
local function finish(claim, number)
  local retry = end_claim(claim, number)
  if retry and retry.claim and remove_retry(group, padded(number), retry, time) then
    has_returned = true
  end
  return retry and true
end

-- Lets a message whose claim has ended come again.
local function put_back(number, retry, due)
  retry.claim, retry.consumer, retry.since, retry.due = false, false, time, due
  save_retry(group, number, retry)
  has_returned = true
end

-- The headers of a dead letter: those of the message, and `provenance` in place of what an earlier
-- death left.
local function letter_headers(headers, provenance)
  local is_read, letter = pcall(cjson.decode, headers)
  if not is_read or type(letter) ~= 'table' then
    -- It was written by hand.
    return provenance
  end
  for key in pairs(letter) do
    if string.sub(key, 1, #ARGV[4]) == ARGV[4] then
      letter[key] = nil
    end
  end
  for key, value in pairs(provenance ~= '' and cjson.decode(provenance) or {}) do
    letter[key] = value
  end
  return next(letter) and cjson.encode(letter) or ''
end

-- Copies a message to another stream; false if it is gone.
local function bury(number, to, provenance)
  local headers, payload = find(stream, number)
  if not headers then
    lost = lost + 1
    return false
  end
  local letter = letters[to]
  if not letter then
    letter = find_or_create_stream(to, ARGV[3])
    letters[to] = letter
    table.insert(order, letter)
  end
  write(letter, time, headers ~= '' and letter_headers(headers, provenance) or provenance, payload)
  dead = dead + 1
  return true
end

local function extend(claim, number, deadline)
  local lease = lease_of(claim)
  if lease then
    local index = number - lease.lo + 1
    if string.sub(lease.open, index, index) == '1' and index > 0 then
      if lease.deadline < deadline then
        lease.deadline = deadline
        call('ZADD', group.due, deadline, 'l' .. claim)
        changed[claim] = true
      end
      return true
    end
  end
  local retry = held(claim, number)
  if not retry then
    return false
  end
  if retry.due < deadline then
    retry.due = deadline
    save_retry(group, number, retry)
  end
  return true
end

local function say(is_obeyed)
  table.insert(obeyed, is_obeyed and '1' or '0')
end

local at = 5
while at <= #ARGV do
  local kind, claim, number = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  if kind == 'a' then
    local last = tonumber(ARGV[at + 3])
    if settle_in(lease_of(claim), number, last) then
      table.insert(obeyed, string.rep('1', last - number + 1))
    else
      for each = number, last do
        say(finish(claim, each))
      end
    end
    at = at + 4
  elseif kind == 'e' then
    local deadline = time + ARGV[at + 4]
    for each = number, tonumber(ARGV[at + 3]) do
      say(extend(claim, each, deadline))
    end
    at = at + 5
  elseif kind == 'l' then
    local retry = end_claim(claim, number)
    if retry then
      retry.attempts = retry.attempts - 1
      put_back(number, retry, time)
    end
    say(retry)
    at = at + 3
  elseif kind == 'r' then
    local retry = end_claim(claim, number)
    if retry then
      retry.last_error = ARGV[at + 5] == '1' and ARGV[at + 4]
      put_back(number, retry, time + ARGV[at + 3])
    end
    say(retry)
    at = at + 6
  elseif kind == 'x' then
    local is_obeyed = finish(claim, number)
    lost = lost + (is_obeyed and 1 or 0)
    say(is_obeyed)
    at = at + 3
  else
    say(finish(claim, number) and bury(number, ARGV[at + 3], ARGV[at + 4]))
    at = at + 5
  end
end

for claim in pairs(changed) do
  local lease = leases[claim]
  if string.find(lease.open, '1', 1, true) then
    call('HSET', group.lease, claim, pack_lease(lease))
  else
    remove_lease(group, lease)
  end
end
for _, letter in ipairs(order) do
  save_head(letter)
  trim(letter, time, false)
  wake_waiting(letter.name)
end
if dead > 0 then
  call('HINCRBY', group.key, 'dead_lettered', dead)
end
if lost > 0 then
  call('HINCRBY', group.key, 'lost_to_trim', lost)
end
if has_returned then
  wake_waiting(name)
end
return table.concat(obeyed)
