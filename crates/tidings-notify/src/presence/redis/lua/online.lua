-- Which users are online.
--
-- ARGV: the users
-- Returns: 1 or 0 for each
local reply = {}
for place, packed in ipairs(call('HMGET', users, unpack(ARGV))) do
  local is_online = 0
  each_lease(packed or '', function(lease)
    if is_alive(lease) then
      is_online = 1
    end
  end)
  reply[place] = is_online
end
return reply
