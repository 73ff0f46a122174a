-- Every change is one call of a function. The rows of logs are locked first, in the order of their users, and everything
-- else that belongs to a log is written under its lock.
--
-- Times are in microseconds since 1970, by the server's clock where it is not an event's own timestamp.

CREATE TABLE tidings_notify_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL UNIQUE,
    epoch bigint NOT NULL,
    -- The timeline of the server that wrote the log last: another one is that of a promoted replica, or
    -- of a restored copy, which may lack what the old one had.
    line integer NOT NULL,
    first_seq bigint NOT NULL DEFAULT 1,
    top_seq bigint NOT NULL DEFAULT 0,
    unread bigint NOT NULL DEFAULT 0 CHECK (unread >= 0),
    unseen bigint NOT NULL DEFAULT 0 CHECK (unseen >= 0),
    -- The number up to which events have been seen.
    seen_seq bigint NOT NULL DEFAULT 0,
    -- How far the marks reach up to which all is read.
    read_seq bigint NOT NULL DEFAULT 0,
    revision bigint NOT NULL DEFAULT 0,
    -- Two times that never fall along a log: the greatest timestamp so far, and when events were stored.
    latest_at bigint NOT NULL DEFAULT -9223372036854775808,
    stored_at bigint NOT NULL DEFAULT 0,
    -- The transaction that changed what streams see.
    changed xid8 NOT NULL DEFAULT pg_current_xact_id()
) WITH (fillfactor = 70);

CREATE INDEX tidings_notify_log_changed ON tidings_notify_log (changed, id);

-- How far a user was sent the log. In a table of its own, because it changes with every screen that
-- reads, and the log's row is the lock of those that write.
CREATE TABLE tidings_notify_delivered (
    log bigint PRIMARY KEY,
    epoch bigint NOT NULL,
    seq bigint NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE tidings_notify_event (
    log bigint NOT NULL,
    seq bigint NOT NULL,
    timestamp bigint NOT NULL,
    latest_at bigint NOT NULL,
    stored_at bigint NOT NULL,
    type text NOT NULL,
    event_key text,
    payload text NOT NULL,
    PRIMARY KEY (log, seq)
);

-- What differs from a new event. See the module `state` of the store on SQLite, which keeps the same.
CREATE TABLE tidings_notify_state (
    log bigint NOT NULL,
    seq bigint NOT NULL,
    read_at bigint,
    is_unread boolean NOT NULL DEFAULT false,
    archived_at bigint,
    PRIMARY KEY (log, seq)
);

-- An event that is replaced while it is unread says so for as long as it is kept. The index is for the few that were put
-- back to unread in the inbox, which are all that "read up to here" changes.
CREATE INDEX tidings_notify_state_unread ON tidings_notify_state (log, seq)
    WHERE is_unread AND archived_at IS NULL;

CREATE INDEX tidings_notify_state_archived ON tidings_notify_state (log, seq)
    WHERE archived_at IS NOT NULL;

-- The runs of archived events, which lists of the inbox skip: as on SQLite, see the module `archived` there.
CREATE TABLE tidings_notify_archived (
    log bigint NOT NULL,
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    PRIMARY KEY (log, first_seq)
) WITH (fillfactor = 70);

-- Everything in the inbox up to a number was read at a time.
CREATE TABLE tidings_notify_read_mark (
    log bigint NOT NULL,
    up_to bigint NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (log, up_to)
);

-- The events of the inbox that have a key.
CREATE TABLE tidings_notify_key (
    log bigint NOT NULL,
    event_key text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (log, event_key, seq)
);
