-- A file as the second version of the tables left it: three events, of which the second is read.
CREATE TABLE tidings_schema (component TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO tidings_schema VALUES ('notify', 2);
CREATE TABLE notify_log (
    id INTEGER PRIMARY KEY,
    user TEXT NOT NULL UNIQUE,
    epoch INTEGER NOT NULL,
    first_seq INTEGER NOT NULL DEFAULT 1,
    top_seq INTEGER NOT NULL,
    delivered_seq INTEGER NOT NULL DEFAULT 0,
    unread INTEGER NOT NULL CHECK (unread >= 0),
    read_revision INTEGER NOT NULL DEFAULT 0,
    latest_at INTEGER NOT NULL,
    stored_at INTEGER NOT NULL,
    changed INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX notify_log_changed ON notify_log (changed);
CREATE TABLE notify_event (
    key INTEGER PRIMARY KEY,
    timestamp INTEGER NOT NULL,
    latest_at INTEGER NOT NULL,
    stored_at INTEGER NOT NULL,
    read_at INTEGER,
    type TEXT NOT NULL,
    payload TEXT NOT NULL
) STRICT;
CREATE INDEX notify_event_type ON notify_event (type, key);
CREATE INDEX notify_event_unread ON notify_event (key) WHERE read_at IS NULL;
DROP INDEX notify_event_type;
INSERT INTO notify_log VALUES (1, 'ann', 7, 1, 3, 0, 2, 1, 1700000000000000, 1700000000000000, 4);
INSERT INTO notify_event (key, timestamp, latest_at, stored_at, read_at, type, payload) VALUES
    (4294967297, 1700000000000000, 1700000000000000, 1700000000000000, NULL, 'test', '1'),
    (4294967298, 1700000000000000, 1700000000000000, 1700000000000000, 1700000000000000, 'test', '2'),
    (4294967299, 1700000000000000, 1700000000000000, 1700000000000000, NULL, 'test', '3');
