-- Appends messages, stores the retention if there is one, and trims to what is stored.
--
-- ARGV: stream, birth of a new one, max_len, max_age, trim_pending (empty: the stored retention stays),
--       how many messages have a key, how
--       many entries there are to be; for each message with a key its index, the key and the window; for
--       each entry how many messages it gets; for each message its headers and its payload. Where some
--       have a key, each message gets an entry.
-- Returns: the number of the first new message, then index and number of each repeat
--
-- All or nothing: without `allow-oom` the server refuses the script as a whole when it has no room,
-- and looks at that only once; everything is read before anything is written; and what is written
-- then cannot be refused. The types of our own keys are as we made them, and the ids in the log are
-- below the next one because head and log change together.
local name, birth = ARGV[1], ARGV[2]
local keyed, entries = tonumber(ARGV[6]), tonumber(ARGV[7])
local first_entry = 8 + 3 * keyed
local first_message = first_entry + entries
local time = now()
local stream = find_stream(name)

local head = stream and stream.head or 0
local count = (#ARGV + 1 - first_message) / 2
if head + count > MAX_NUMBER then
  return redis.error_reply('NUMBERS the stream has used up all of its numbers')
end

-- Repeats, by index, and the keys that are new.
local repeats, keys = {}, {}
local reply = { head + 1 }
if keyed > 0 then
  birth = stream and stream.birth or birth
  local number = head
  local taken, next_index = {}, 1
  for at = 8, first_entry - 1, 3 do
    local index = tonumber(ARGV[at])
    local key = stream_key('key:' .. birth, name) .. '\31' .. ARGV[at + 1]
    -- Those in between have no key.
    number = number + index - next_index
    next_index = index + 1
    local first = taken[key] or tonumber(call('GET', key))
    if first then
      repeats[index] = true
      table.insert(reply, index)
      table.insert(reply, first)
    else
      number = number + 1
      taken[key] = number
      table.insert(keys, { key, number, ARGV[at + 2] })
    end
  end
end

stream = stream or find_or_create_stream(name, birth)
local at = first_message
for index = 1, entries do
  local next_entry = at + 2 * ARGV[first_entry + index - 1]
  if not repeats[index] then
    write(stream, time, unpack(ARGV, at, next_entry - 1))
  end
  at = next_entry
end
if stream.head > head then
  save_head(stream)
end
for _, key in ipairs(keys) do
  call('SET', key[1], key[2], 'PX', key[3])
end
if ARGV[5] ~= '' then
  keep(stream, ARGV[3], ARGV[4], ARGV[5])
end
trim(stream, time, false)
if stream.head > head then
  wake_waiting(name)
end
return reply
