-- The tables. What is in them is worth nothing once the connections are gone, so no log is written.

CREATE UNLOGGED TABLE tidings_presence_lease (
    lease_id  bigint PRIMARY KEY,
    routing   text NOT NULL,                  -- JSON
    version   bigint NOT NULL,                -- of the last update; the largest bigint: it has ended
    ends_at   timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE UNLOGGED TABLE tidings_presence_user (
    user_id   text COLLATE "C" NOT NULL,
    lease_id  bigint NOT NULL,
    PRIMARY KEY (user_id, lease_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX tidings_presence_user_lease ON tidings_presence_user (lease_id);

CREATE UNLOGGED TABLE tidings_presence_transition (
    number    bigint PRIMARY KEY,
    user_id   text NOT NULL,
    is_online boolean NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- Its one row is locked by every update.
CREATE UNLOGGED TABLE tidings_presence_log (
    one       boolean PRIMARY KEY CHECK (one),
    epoch     bigint NOT NULL,                -- random
    number    bigint NOT NULL                 -- of the last transition
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

