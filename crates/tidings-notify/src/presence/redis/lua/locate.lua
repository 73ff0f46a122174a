-- Where a user has connections.
--
-- ARGV: the user
-- Returns: the place of each lease
local places = {}
each_lease(call('HGET', users, ARGV[1]) or '', function(lease)
  local place = is_alive(lease) and call('HGET', lease_key(lease), 'place')
  if place then
    table.insert(places, place)
  end
end)
return places
