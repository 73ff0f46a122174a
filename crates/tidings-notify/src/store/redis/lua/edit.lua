-- Changing logs.
local function now()
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end

local function set_state(log, seq, read, archived)
  call('HSET', log.states, seq, read .. '|' .. archived)
  call('ZADD', log.rows, seq, seq)
  if read == '' and archived == '' then
    call('ZADD', log.open, seq, seq)
  else
    call('ZREM', log.open, seq)
  end
end

-- The event of a key, or nil.
local function entry_of(log, seq)
  return call('XRANGE', log.events, seq .. '-0', seq .. '-0')[1]
end

-- The events of the inbox that have a key: their numbers, between commas.
local function add_keyed(log, name, seq)
  local packed = call('HGET', log.keyed, name) or ','
  call('HSET', log.keyed, name, packed .. seq .. ',')
end

local function remove_keyed(log, name, seq)
  local packed = call('HGET', log.keyed, name)
  if not packed then
    return
  end
  local from, to = packed:find(',' .. seq .. ',', 1, true)
  if from then
    packed = packed:sub(1, from) .. packed:sub(to + 1)
  end
  if packed == ',' then
    call('HDEL', log.keyed, name)
  else
    call('HSET', log.keyed, name, packed)
  end
end

-- Notes that logs have changed, and wakes those who listen: with the names of many users in a message, a line each,
-- after a line for a sender, which is empty. A user that may not use channels gets an error, which must not end the script.
local function note_changes(logs)
  local number = call('HINCRBY', meta, 'number', #logs) - #logs
  local add, names, count = {}, {}, 0
  for place, log in ipairs(logs) do
    count = count + 1
    add[2 * count - 1], add[2 * count], names[count] = number + place, log.user, log.user
    -- More arguments than that have no room on Lua's stack.
    if count == 500 or place == #logs then
      call('ZADD', changed, unpack(add))
      redis.pcall('PUBLISH', root .. ':wake', '\n' .. table.concat(names, '\n'))
      add, names, count = {}, {}, 0
    end
  end
end

local function note_change(log)
  note_changes({ log })
end

-- Up to which number the events before `first` may be removed at once: `most` of them, and to the first that is unread
-- in the inbox, if these are kept.
local function removable(log, first, keep, most)
  first = math.min(first, log.first + most)
  if keep ~= '1' then
    return first
  end
  for seq = log.first, first - 1 do
    local read, archived = state_of(log, seq)
    if read == '' and archived == '' then
      return seq
    end
  end
  return first
end

-- Removes the events before a number, and all that was kept of them. Whether the counts change counts as a
-- change of the inbox.
local function trim(log, first)
  local before = { unread(log), unseen(log) }
  if call('EXISTS', log.keyed) == 1 then
    -- With their payloads, so only some are in memory at a time.
    local from = '-'
    repeat
      local entries = call('XRANGE', log.events, from, '(' .. first .. '-0', 'COUNT', 100)
      for _, entry in ipairs(entries) do
        local name = entry[2][12]
        if name then
          remove_keyed(log, name, entry[1]:match('^%d+'))
        end
        from = '(' .. entry[1]
      end
    until #entries < 100
  end
  for _, seq in ipairs(call('ZRANGE', log.rows, '-inf', '(' .. first, 'BYSCORE')) do
    call('HDEL', log.states, seq)
  end
  for _, key in ipairs({ log.rows, log.open, log.marks }) do
    call('ZREMRANGEBYSCORE', key, '-inf', '(' .. first)
  end
  call('XTRIM', log.events, 'MINID', first .. '-0')
  log.first = first
  local oldest_entry = first <= log.top and entry_of(log, first)
  if oldest_entry then
    call('ZADD', oldest, oldest_entry[2][8], log.user)
  else
    call('ZREM', oldest, log.user)
  end
  local has_changed = before[1] ~= unread(log) or before[2] ~= unseen(log)
  if has_changed then
    log.revision = log.revision + 1
  end
  call('HSET', log.key, 'first', log.first, 'revision', log.revision)
  return has_changed
end
