-- Where a group begins: the number before the first message that it gets. `stream` may be nil.
-- Returns nothing when that would be ahead of the stream.
local function position(stream, start, value)
  local head, tail = stream and stream.head or 0, stream and stream.tail or 1
  if start == 'latest' then
    return head
  elseif start == 'earliest' then
    return tail - 1
  elseif start == 'after' then
    local number = tonumber(value)
    return number <= head and math.max(number, tail - 1) or nil
  end
  return stream and first_at(stream, tail, head, tonumber(value)) - 1 or head
end
