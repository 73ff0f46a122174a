-- The tables. Times are milliseconds since 1970 of the server's clock.

CREATE TABLE tidings_stream (
    stream_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text COLLATE "C" NOT NULL UNIQUE,
    tail         bigint NOT NULL DEFAULT 1,   -- number of the oldest message; the next one when none is kept
    max_len      bigint,                      -- NULL: no bound
    max_age      bigint,                      -- milliseconds; NULL: no bound
    trim_pending boolean NOT NULL DEFAULT false -- the bounds reach what a group has yet to handle
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE TABLE tidings_stream_message (
    stream_id    bigint NOT NULL,
    number       bigint NOT NULL,
    created_at   bigint NOT NULL,
    bytes        bigint NOT NULL,             -- payloads and headers of the stream up to here, these included
    headers      bytea,                       -- a JSON object; NULL: none; empty: the message was deleted
    payload      bytea NOT NULL,
    PRIMARY KEY (stream_id, number)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);
ALTER TABLE tidings_stream_message ALTER payload SET STORAGE EXTERNAL;

CREATE TABLE tidings_stream_group (
    group_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream_id     bigint NOT NULL,
    name          text COLLATE "C" NOT NULL,
    dead_lettered bigint NOT NULL DEFAULT 0,
    lost_to_trim  bigint NOT NULL DEFAULT 0,
    UNIQUE (stream_id, name)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- The one with the largest numbers says how far its group has come: it stays until there is a larger
-- one, even when nothing of it is open any more.
CREATE TABLE tidings_stream_lease (
    group_id      bigint NOT NULL,
    hi            bigint NOT NULL,            -- number of the last message
    lo            bigint NOT NULL,            -- number of the first; above hi when there is none
    claim         bigint NOT NULL,
    consumer      text NOT NULL,
    since         bigint NOT NULL,            -- when it was claimed
    deadline      bigint,                     -- NULL: nothing of it is open
    settled       varbit NOT NULL,            -- bit i: message lo + i is settled, or has a row of its own
    -- As it was when the row was made, so that no query has to look through what is long gone:
    next_deadline bigint,                     -- no open lease of the group had an earlier deadline
    first_open    bigint NOT NULL,            -- no lease of the group with a smaller hi was open
    PRIMARY KEY (group_id, hi)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX tidings_stream_lease_deadline ON tidings_stream_lease (group_id, deadline)
    WHERE deadline IS NOT NULL;

CREATE TABLE tidings_stream_retry (
    group_id      bigint NOT NULL,
    number        bigint NOT NULL,
    due           bigint NOT NULL,            -- when it may be claimed, or claimed again
    since         bigint NOT NULL,            -- when it was claimed, or put here
    attempts      integer NOT NULL,           -- that have begun
    claim         bigint,                     -- who has it; NULL: it waits
    consumer      text,                       -- who has it; NULL: it waits
    last_error    bytea,
    ordering_key  bytea,                      -- as in JSON; of a group that keeps the order, else NULL
    PRIMARY KEY (group_id, number)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX tidings_stream_retry_due ON tidings_stream_retry (group_id, due, number)
    WHERE claim IS NULL;
CREATE INDEX tidings_stream_retry_expiry ON tidings_stream_retry (group_id, due, number)
    WHERE claim IS NOT NULL;
CREATE INDEX tidings_stream_retry_key ON tidings_stream_retry (group_id, ordering_key, number)
    WHERE ordering_key IS NOT NULL;

-- Where looks for a group's retries begin. The row with the largest id counts; it is replaced, not
-- updated.
CREATE TABLE tidings_stream_retry_floor (
    group_id      bigint NOT NULL,
    floor_id      bigint GENERATED ALWAYS AS IDENTITY,
    waiting       bigint NOT NULL,            -- no retry that waits is due earlier
    claimed       bigint,                     -- no claim of a retry expires earlier; NULL: there is none
    lowest        bigint NOT NULL,            -- no retry has a smaller number, now or later
    PRIMARY KEY (group_id, floor_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE TABLE tidings_stream_member (
    group_id      bigint NOT NULL,
    consumer      text COLLATE "C" NOT NULL,
    expires       bigint NOT NULL,            -- until when it is taken to be alive
    PRIMARY KEY (group_id, consumer)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX tidings_stream_member_expires ON tidings_stream_member (expires);

CREATE TABLE tidings_stream_publish_key (
    stream_id     bigint NOT NULL,
    key           text COLLATE "C" NOT NULL,
    number        bigint NOT NULL,            -- of the first message under the key
    expires       bigint NOT NULL,
    PRIMARY KEY (stream_id, key)
);
CREATE INDEX tidings_stream_publish_key_expires ON tidings_stream_publish_key (expires);

-- What transactions of others have published, until it gets its numbers.
CREATE TABLE tidings_stream_outbox (
    outbox_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream        text COLLATE "C" NOT NULL,
    headers       bytea,
    payload       bytea NOT NULL,
    key           text,                       -- a publish key
    key_window    bigint,                     -- milliseconds
    created_at    bigint NOT NULL DEFAULT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
ALTER TABLE tidings_stream_outbox ALTER payload SET STORAGE EXTERNAL;
-- What one stream has in it, also behind a large backlog of another.
CREATE INDEX tidings_stream_outbox_stream ON tidings_stream_outbox (stream, outbox_id);

-- Its one row is locked by the session that empties the outbox.
CREATE TABLE tidings_stream_sequencer (one boolean PRIMARY KEY CHECK (one));
INSERT INTO tidings_stream_sequencer VALUES (true);
