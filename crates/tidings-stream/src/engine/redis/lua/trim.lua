-- Trims a stream to its bounds.
--
-- ARGV: stream
-- Returns: how many messages were removed; as many as a chunk has when there may be more
local stream = find_stream(ARGV[1])
return stream and trim(stream, now(), true) or 0
