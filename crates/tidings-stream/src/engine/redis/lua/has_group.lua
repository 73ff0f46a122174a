-- Whether a group exists, and its stream.
--
-- ARGV: stream, group
-- Returns: 1, or 0
return find_stream(ARGV[1]) and find_group(ARGV[1], ARGV[2]) and 1 or 0
