-- Trims a stream to its bounds.
--
-- ARGV: stream
-- Returns: how many messages were removed; as many as a chunk has when there may be more
local stream = find_stream(ARGV[1])
local removed = stream and trim(stream, now(), true) or 0
if removed > 0 then
  -- It may have kept an ordering key from others.
  wake(ARGV[1])
end
return removed
