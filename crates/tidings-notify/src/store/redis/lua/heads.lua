-- Where logs stand.
--
-- ARGV: users
-- Returns: the head of each; nothing for one without a log
local heads = {}
for at, user in ipairs(ARGV) do
  local log = find_log(user)
  heads[at] = log and head(log) or false
end
return heads
