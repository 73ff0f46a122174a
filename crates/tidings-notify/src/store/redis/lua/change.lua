-- Changes the inbox of a user.
--
-- ARGV: user, time, action, and for an action on single events the epoch and number of each, for one up to an
--       event its epoch and number, which are missing when it is the top
-- Returns: nothing when there is no log; otherwise its head, how many events changed, the number up to which
--         they did, -1 when that was an event of another log, and the places of the single events that did
local log = find_log(ARGV[1])
if not log then
  return false
end
local at, action = ARGV[2], ARGV[3]
local places, up_to, count = {}, -1, 0

local function each_event(edit)
  for index = 4, #ARGV, 2 do
    local seq = tonumber(ARGV[index + 1])
    if ARGV[index] == log.epoch and seq >= log.first and seq <= log.top then
      local read, archived = state_of(log, seq)
      local new_read, new_archived = edit(read, archived)
      if new_read ~= read or new_archived ~= archived then
        set_state(log, seq, new_read, new_archived)
        if (archived == '') ~= (new_archived == '') then
          local name = entry_of(log, seq)[2][12]
          if name and new_archived == '' then
            add_keyed(log, name, seq)
          elseif name then
            remove_keyed(log, name, seq)
          end
        end
        table.insert(places, (index - 4) / 2)
      end
    end
  end
  count = #places
end

-- The number up to which an action reaches; none for an event of another log.
local function reach()
  if not ARGV[4] then
    return log.top
  end
  return ARGV[4] == log.epoch and math.min(tonumber(ARGV[5]), log.top) or nil
end

if action == 'read' then
  each_event(function(read, archived) return read == '' and at or read, archived end)
elseif action == 'unread' then
  each_event(function(_, archived) return '', archived end)
elseif action == 'archive' then
  each_event(function(read, archived) return read, archived == '' and at or archived end)
elseif action == 'unarchive' then
  each_event(function(read, _) return read, '' end)
elseif action == 'read_up_to' then
  local last = reach()
  if last then
    local before = unread(log)
    up_to = last
    for _, seq in ipairs(call('ZRANGE', log.open, '-inf', last, 'BYSCORE')) do
      set_state(log, tonumber(seq), at, '')
    end
    if last > log.read then
      -- What is archived and unread stays unread: it has a state of its own.
      call('ZADD', log.marks, last, last .. ':' .. at)
      log.read = last
      call('HSET', log.key, 'read', last)
    end
    count = before - unread(log)
  end
elseif action == 'see_up_to' then
  local last = reach()
  if last then
    local before = unseen(log)
    up_to = last
    log.seen = math.max(log.seen, last)
    call('HSET', log.key, 'seen', log.seen)
    count = before - unseen(log)
  end
end
if count > 0 then
  log.revision = log.revision + 1
  call('HSET', log.key, 'revision', log.revision)
  note_change(log)
end
return { head(log), count, up_to, places }
