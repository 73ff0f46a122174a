-- The logs that have changed after a number.
--
-- ARGV: run of the server or an empty text, and unless the mark of now is wanted the run of a mark, its
--       number, and most logs
-- Returns: the run, the number up to which all was looked at, whether there is more, whether the mark was of
--         this run, and the user and head of each log
local run = run_of(ARGV[1])
local newest = tonumber(call('HGET', meta, 'number') or 0)
local logs = {}
if not ARGV[2] then
  return { run, newest, 0, 1, logs }
end
if ARGV[2] ~= run or tonumber(ARGV[3]) > newest then
  return { run, newest, 0, 0, logs }
end
local found = call('ZRANGE', changed, '(' .. ARGV[3], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[4], 'WITHSCORES')
for at = 1, #found, 2 do
  local log = find_log(found[at])
  if log then
    table.insert(logs, { log.user, head(log) })
  end
end
-- Logs that are gone count, so that those after them are not passed over.
local reached = #found == 2 * tonumber(ARGV[4]) and tonumber(found[#found]) or newest
return { run, reached, reached < newest and 1 or 0, 1, logs }
