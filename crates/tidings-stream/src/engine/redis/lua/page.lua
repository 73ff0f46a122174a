-- Which messages a page of a stream has.
--
-- ARGV: stream, after which message, how many at most
-- Returns: birth of the stream, first and last message; nothing when there is none
local stream = find_stream(ARGV[1])
if not stream then
  return false
end
local lo = math.max(tonumber(ARGV[2]) + 1, stream.tail)
local hi = math.min(stream.head, lo + math.min(tonumber(ARGV[3]), MAX_RANGE) - 1)
if hi < lo then
  return false
end
return { stream.birth, lo, (cut(stream, lo, hi, 0)) }
