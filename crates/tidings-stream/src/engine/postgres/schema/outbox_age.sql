-- Since when a message waits in the outbox, in milliseconds since 1970; NULL in the rows of an earlier version.
-- Not by a function of ours: those are replaced, and a default would keep one from being dropped.
ALTER TABLE tidings_stream_outbox ADD COLUMN created_at bigint;
ALTER TABLE tidings_stream_outbox ALTER COLUMN created_at
    SET DEFAULT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint;

-- What one stream has in it, also behind a large backlog of another.
CREATE INDEX tidings_stream_outbox_stream ON tidings_stream_outbox (stream, outbox_id);
