//! The tables.

pub(super) use crate::columns::{
    duration_micros, limit, micros, open_for, open_for_micros, optional_time, time,
};

/// Whose tables these are, in the file's list of schemas.
pub(crate) const COMPONENT: &str = "webhooks";

/// The steps of the migration. One that was released is never changed; a change is another step.
///
/// Times are in microseconds since 1970. `due_at`, `free_at`, `next_due`, `blocked_until`,
/// `failing_since`, `resume_at` and the clock are of the clock of what is due, the others of the
/// wall. States are 0 pending, 1 delivered, 2 failed, 3 cancelled.
///
/// `free_at` is when a lane may be leased: when its lease ends, or when there is something to do.
/// `was_unblocked` is whether something ended the block of a lane while it was leased: its holder may not know yet.
/// `next_open_for` is for how long the circuit of a lane opens next, in microseconds; 0 if it is closed.
///
/// Endpoints are numbered in the order in which they are made. A number is used once, so the last one is kept apart from
/// the endpoints, which may go. The leader is the instance that makes deliveries of accepted events.
///
/// The deliveries of an endpoint are found by two indexes: a place for each endpoint is written once for a delivery, when
/// it ends. Those that wait are few, and near each other. Of two indexes that fit as well, SQLite takes the later one: the
/// index of those that wait comes after that of those that are due.
pub(crate) const STEPS: &[&str] = &["
    CREATE TABLE webhook_clock (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        now INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE webhook_endpoint (
        endpoint INTEGER PRIMARY KEY,
        user TEXT,
        settings TEXT NOT NULL,
        event_types TEXT NOT NULL,
        secrets TEXT NOT NULL,
        first_wait INTEGER,
        disabled_because TEXT,
        removed INTEGER NOT NULL DEFAULT 0,
        revision INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        number INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX webhook_endpoint_user ON webhook_endpoint (user, created_at) WHERE removed = 0;
    CREATE INDEX webhook_endpoint_removed ON webhook_endpoint (endpoint) WHERE removed = 1;
    CREATE TABLE webhook_event (
        event INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        user TEXT,
        type TEXT NOT NULL,
        timestamp INTEGER NOT NULL,
        payload TEXT NOT NULL,
        accepted_at INTEGER NOT NULL,
        has_delivery INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX webhook_event_accepted ON webhook_event (accepted_at);
    CREATE INDEX webhook_event_bare ON webhook_event (accepted_at) WHERE has_delivery = 0;
    CREATE TABLE webhook_delivery (
        delivery INTEGER PRIMARY KEY AUTOINCREMENT,
        event INTEGER NOT NULL,
        endpoint INTEGER NOT NULL,
        state INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        tries INTEGER NOT NULL DEFAULT 0,
        due_at INTEGER,
        created_at INTEGER NOT NULL,
        finished_at INTEGER,
        reason TEXT,
        UNIQUE (event, endpoint)
    ) STRICT;
    CREATE INDEX webhook_delivery_due ON webhook_delivery (endpoint, due_at, delivery)
        WHERE state = 0;
    CREATE INDEX webhook_delivery_state ON webhook_delivery (state, delivery);
    CREATE INDEX webhook_delivery_finished ON webhook_delivery (finished_at)
        WHERE finished_at IS NOT NULL;
    CREATE INDEX webhook_delivery_waiting ON webhook_delivery (endpoint, delivery)
        WHERE state = 0;
    CREATE INDEX webhook_delivery_ended ON webhook_delivery (endpoint, state, delivery)
        WHERE state > 0;
    CREATE TABLE webhook_attempt (
        delivery INTEGER NOT NULL,
        number INTEGER NOT NULL,
        started_at INTEGER NOT NULL,
        duration INTEGER NOT NULL,
        status INTEGER,
        error TEXT,
        response TEXT NOT NULL,
        PRIMARY KEY (delivery, number)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE webhook_lane (
        endpoint INTEGER PRIMARY KEY,
        next_due INTEGER NOT NULL,
        blocked_until INTEGER NOT NULL DEFAULT 0,
        owner TEXT,
        free_at INTEGER NOT NULL,
        was_unblocked INTEGER NOT NULL DEFAULT 0,
        next_open_for INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX webhook_lane_free ON webhook_lane (free_at);
    CREATE INDEX webhook_lane_owner ON webhook_lane (owner) WHERE owner IS NOT NULL;
    CREATE TABLE webhook_health (
        endpoint INTEGER PRIMARY KEY,
        last_success_at INTEGER,
        last_failure_at INTEGER,
        failing_since INTEGER,
        hour INTEGER NOT NULL,
        succeeded INTEGER NOT NULL,
        failed INTEGER NOT NULL,
        succeeded_before INTEGER NOT NULL,
        failed_before INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE webhook_replay (
        endpoint INTEGER PRIMARY KEY,
        position INTEGER NOT NULL,
        last INTEGER NOT NULL,
        per_second INTEGER NOT NULL,
        resume_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE webhook_newest_endpoint (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        number INTEGER NOT NULL
    ) STRICT;
    INSERT INTO webhook_newest_endpoint (one, number) VALUES (1, 0);
    CREATE TABLE webhook_deferred (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        user TEXT,
        newest_endpoint INTEGER NOT NULL,
        event TEXT NOT NULL
    ) STRICT;
    CREATE INDEX webhook_deferred_user ON webhook_deferred (user);
    CREATE TABLE webhook_leader (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        instance TEXT NOT NULL,
        until INTEGER NOT NULL
    ) STRICT;
"];
