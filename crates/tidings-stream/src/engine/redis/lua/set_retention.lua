-- Stores the retention of a stream, which is created if need be, and trims to it.
--
-- ARGV: stream, birth of a new one, max_len, max_age, trim_pending
local stream = find_or_create_stream(ARGV[1], ARGV[2])
keep(stream, ARGV[3], ARGV[4], ARGV[5])
if trim(stream, now(), true) > 0 then
  -- It may have kept an ordering key from others.
  wake(ARGV[1])
end
