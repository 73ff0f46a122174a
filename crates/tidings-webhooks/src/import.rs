//! Moving the webhooks of a SQLite file to a PostgreSQL database.

use tidings_import::{Lease, Part, Sequence, Table};

use crate::sqlite::schema::{COMPONENT, STEPS};

/// The tables of endpoints, deliveries and attempts. Ids stay, and so does the time at which a pending
/// delivery is due.
///
/// A [`SqliteStore`](crate::sqlite::SqliteStore) must have been opened on the file, alone: it frees the lanes of an
/// earlier run. What was accepted and has no deliveries yet is in the streams, which are a part of their own.
pub const PART: Part = Part {
    component: COMPONENT,
    version: STEPS.len(),
    data: &[
        "tidings_webhook_endpoint",
        "tidings_webhook_event",
        "tidings_webhook_deferred",
    ],
    // A server makes deliveries itself, or waits for the one that does.
    lease: Some(Lease {
        table: "tidings_webhook_leader",
        is_valid: "until > extract(epoch FROM clock_timestamp()) * 1000000",
    }),
    tables: &[
        Table {
            name: "tidings_webhook_clock",
            columns: "one, now",
            select: "one, now",
            from: "webhook_clock",
            with: None,
        },
        Table {
            name: "tidings_webhook_endpoint",
            columns: "endpoint, user_id, settings, event_types, secrets, first_wait, disabled_because, \
                      removed, revision, created_at, number",
            select: "endpoint, user, settings, event_types, secrets, first_wait, disabled_because, \
                     removed, revision, created_at, number",
            from: "webhook_endpoint",
            with: None,
        },
        Table {
            name: "tidings_webhook_event",
            columns: "event, id, user_id, type, timestamp, payload, accepted_at, has_delivery",
            select: "event, id, user, type, timestamp, payload, accepted_at, has_delivery",
            from: "webhook_event",
            with: None,
        },
        Table {
            name: "tidings_webhook_deferred",
            columns: "number, id, user_id, newest_endpoint, event",
            select: "number, id, user, newest_endpoint, event",
            from: "webhook_deferred",
            with: None,
        },
        Table {
            name: "tidings_webhook_delivery",
            columns: "delivery, event, endpoint, state, attempts, tries, due_at, created_at, finished_at, \
                      reason",
            select: "delivery, event, endpoint, state, attempts, tries, due_at, created_at, finished_at, \
                     reason",
            from: "webhook_delivery",
            with: None,
        },
        Table {
            name: "tidings_webhook_attempt",
            columns: "delivery, number, started_at, duration, status, error, response",
            select: "delivery, number, started_at, duration, status, error, response",
            from: "webhook_attempt",
            with: None,
        },
        Table {
            name: "tidings_webhook_lane",
            columns: "endpoint, next_due, blocked_until, free_at, was_unblocked, next_open_for",
            select: "endpoint, next_due, blocked_until, free_at, was_unblocked, next_open_for",
            from: "webhook_lane",
            with: None,
        },
        Table {
            name: "tidings_webhook_health",
            columns: "endpoint, last_success_at, last_failure_at, failing_since, hour, succeeded, failed, \
                      succeeded_before, failed_before",
            select: "endpoint, last_success_at, last_failure_at, failing_since, hour, succeeded, failed, \
                     succeeded_before, failed_before",
            from: "webhook_health",
            with: None,
        },
        Table {
            name: "tidings_webhook_replay",
            columns: "endpoint, position, last, per_second, resume_at",
            select: "endpoint, position, last, per_second, resume_at",
            from: "webhook_replay",
            with: None,
        },
    ],
    sequences: &[
        // A number is used once, also that of an endpoint that is gone.
        Sequence {
            table: "tidings_webhook_endpoint",
            column: "number",
            last: "SELECT max(number) FROM webhook_newest_endpoint",
        },
        Sequence {
            table: "tidings_webhook_event",
            column: "event",
            last: "SELECT max(seq) FROM sqlite_sequence WHERE name = 'webhook_event'",
        },
        Sequence {
            table: "tidings_webhook_delivery",
            column: "delivery",
            last: "SELECT max(seq) FROM sqlite_sequence WHERE name = 'webhook_delivery'",
        },
        Sequence {
            table: "tidings_webhook_deferred",
            column: "number",
            last: "SELECT max(seq) FROM sqlite_sequence WHERE name = 'webhook_deferred'",
        },
    ],
};
