//! The webhooks of files that were written before `tidings-webhooks` had tables of its own.

use tidings_sqlite::Database;
use tidings_sqlite::rusqlite::Transaction;
use tidings_stream::Streams;

use crate::storage::StorageError;

/// The durable stream whose messages were deliveries.
const OLD_STREAM: &str = "webhooks";

/// Moves endpoints, deliveries and attempts into the tables of `tidings-webhooks`, so that pending
/// deliveries continue. Ids change: they are numbers now. Does nothing in a new file.
pub(super) async fn import_webhooks(
    database: &Database,
    streams: &Streams,
) -> Result<(), StorageError> {
    let imported = database.write(import).await?;
    if imported > 0 {
        tracing::info!(
            deliveries = imported,
            "imported the webhooks of an earlier version"
        );
    }
    // After a crash between the two, the next start still finds the stream.
    streams.delete_stream(OLD_STREAM).await?;
    Ok(())
}

fn import(tx: &Transaction<'_>) -> Result<usize, StorageError> {
    let is_old = tx
        .prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'delivery'")?
        .exists([])?;
    if !is_old {
        return Ok(0);
    }
    tx.execute_batch(IMPORT)?;
    let count: i64 = tx.query_row("SELECT count(*) FROM delivery", [], |row| row.get(0))?;
    tx.execute_batch(DROP)?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// Endpoints that were deleted, and still have deliveries, become removed ones.
const IMPORT: &str = "
    CREATE TABLE imported_endpoint AS
        SELECT id, random() & 0x7fffffffffffffff AS endpoint
        FROM (SELECT id FROM endpoint UNION SELECT endpoint_id FROM delivery);
    CREATE INDEX imported_endpoint_id ON imported_endpoint (id);
    INSERT INTO webhook_endpoint
        (endpoint, user, settings, event_types, secrets, disabled_because, removed, revision, created_at)
    SELECT imported_endpoint.endpoint, user, json_object('url', coalesce(url, '')),
        coalesce(event_types, '[]'),
        iif(secret IS NULL, '[]', json_array(json_object('secret', secret, 'until', NULL))),
        disabled_because, url IS NULL, 1, coalesce(created_at, 0)
    FROM imported_endpoint LEFT JOIN endpoint ON endpoint.id = imported_endpoint.id;

    INSERT INTO webhook_event (id, user, type, timestamp, payload, accepted_at, has_delivery)
    SELECT id, body ->> '$.user_id', type,
        unixepoch(substr(time, 1, 19)) * 1000000
            + iif(substr(time, 20, 1) = '.', CAST(substr(rtrim(substr(time, 21), 'Z') || '000000', 1, 6) AS INTEGER), 0),
        body -> '$.data', accepted_at, 1
    FROM (SELECT message.id AS id, type, CAST(body AS TEXT) AS body,
            coalesce(CAST(body AS TEXT) ->> '$.timestamp', '1970-01-01T00:00:00Z') AS time,
            min(delivery.created_at) AS accepted_at
        FROM message JOIN delivery ON delivery.message_id = message.id
        GROUP BY message.id ORDER BY min(delivery.id));

    CREATE TABLE imported_delivery AS
        SELECT delivery.id AS id, row_number() OVER (ORDER BY delivery.id) AS delivery
        FROM delivery;
    CREATE INDEX imported_delivery_id ON imported_delivery (id);
    INSERT INTO webhook_delivery
        (delivery, event, endpoint, state, attempts, tries, due_at, created_at, finished_at, reason)
    SELECT imported_delivery.delivery, webhook_event.event, imported_endpoint.endpoint,
        CASE state WHEN 'pending' THEN 0 WHEN 'delivered' THEN 1 WHEN 'failed' THEN 2 ELSE 3 END,
        attempts, attempts, next_attempt_at, delivery.created_at, finished_at, reason
    FROM delivery
    JOIN imported_delivery ON imported_delivery.id = delivery.id
    JOIN imported_endpoint ON imported_endpoint.id = delivery.endpoint_id
    JOIN webhook_event ON webhook_event.id = delivery.message_id
    ORDER BY delivery.id;

    INSERT INTO webhook_attempt (delivery, number, started_at, duration, status, error, response)
    SELECT imported_delivery.delivery, number, started_at, duration_us, status, error,
        CAST(response AS TEXT)
    FROM attempt JOIN imported_delivery ON imported_delivery.id = attempt.delivery_id;

    INSERT INTO webhook_lane (endpoint, next_due, free_at)
    SELECT endpoint, min(due_at), min(due_at) FROM webhook_delivery WHERE state = 0 GROUP BY endpoint;
";

const DROP: &str = "
    DROP TABLE imported_endpoint;
    DROP TABLE imported_delivery;
    DROP TABLE attempt;
    DROP TABLE delivery;
    DROP TABLE message;
    DROP TABLE endpoint;
    DROP TABLE IF EXISTS readiness;
";

#[cfg(test)]
mod tests {
    use tidings_notify::{Draft, EventType, Payload, UserId};
    use tidings_sqlite::Options;
    use tidings_webhooks::DeliveryState::{Cancelled, Delivered, Pending};
    use tidings_webhooks::{DeliveryQuery, Owner};

    use super::*;
    use crate::idempotency::{IdempotencyKey, Once};
    use crate::storage::sqlite::{idempotency, open_in};
    use crate::storage::{Accept, Accepted};

    /// The tables of the earlier version, with an endpoint of the operator, one of a user, and one
    /// that was deleted.
    const OLD: &str = r#"
        CREATE TABLE endpoint (id TEXT PRIMARY KEY, user TEXT, url TEXT NOT NULL,
            event_types TEXT NOT NULL, secret TEXT NOT NULL, disabled_because TEXT,
            created_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
        CREATE TABLE message (id TEXT PRIMARY KEY, type TEXT NOT NULL, body BLOB NOT NULL
            ) STRICT, WITHOUT ROWID;
        CREATE TABLE delivery (id TEXT PRIMARY KEY, message_id TEXT NOT NULL,
            endpoint_id TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL,
            next_attempt_at INTEGER, created_at INTEGER NOT NULL, finished_at INTEGER, reason TEXT
            ) STRICT, WITHOUT ROWID;
        CREATE TABLE attempt (delivery_id TEXT NOT NULL, number INTEGER NOT NULL,
            started_at INTEGER NOT NULL, duration_us INTEGER NOT NULL, status INTEGER, error TEXT,
            response BLOB NOT NULL, PRIMARY KEY (delivery_id, number)) STRICT, WITHOUT ROWID;
        CREATE TABLE readiness (id INTEGER PRIMARY KEY, tried INTEGER NOT NULL) STRICT;

        INSERT INTO endpoint VALUES
            ('ep_a', NULL, 'https://a.example/', '["paid"]', 'whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3', NULL, 1000000),
            ('ep_b', 'anna', 'https://b.example/', '[]', 'whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3', 'gone', 2000000);
        INSERT INTO message VALUES
            ('00000000000000ff-1', 'paid', CAST('{"id":"00000000000000ff-1","type":"paid","timestamp":"2026-11-21T10:00:00.25Z","user_id":"anna","data":{"n":1.10}}' AS BLOB)),
            ('00000000000000ff-2', 'paid', CAST('{"id":"00000000000000ff-2","type":"paid","timestamp":"2026-11-21T10:00:01Z","user_id":"anna","data":2}' AS BLOB));
        INSERT INTO delivery VALUES
            ('dlv_1', '00000000000000ff-1', 'ep_a', 'pending', 1, 5000000, 3000000, NULL, NULL),
            ('dlv_2', '00000000000000ff-2', 'ep_a', 'delivered', 2, NULL, 3000001, 4000000, NULL),
            ('dlv_3', '00000000000000ff-2', 'ep_c', 'cancelled', 0, NULL, 3000001, 4000000, 'removed');
        INSERT INTO attempt VALUES ('dlv_1', 1, 3000000, 1500, 503, NULL, CAST('busy' AS BLOB));
    "#;

    async fn old_database(folder: &tempfile::TempDir) -> Database {
        let path = folder.path().join("tidings.db");
        let database = Database::open(path, &Options::default()).unwrap();
        let write = |tx: &Transaction<'_>| tx.execute_batch(OLD).map_err(StorageError::from);
        database.write(write).await.unwrap();
        database
    }

    #[tokio::test]
    async fn webhooks_of_an_earlier_version_continue() {
        let folder = tempfile::tempdir().unwrap();
        let database = old_database(&folder).await;
        let storage = open_in(database.clone()).await.unwrap();
        let webhooks = storage.webhooks.as_ref();

        let [of_operator] = &*webhooks.endpoints(&Owner::Operator).await.unwrap() else {
            panic!("expected one endpoint of the operator")
        };
        assert!(of_operator.settings.contains("https://a.example/"));
        assert!(of_operator.secrets.contains("whsec_MDEy"));
        let anna = UserId::new("anna").unwrap();
        let of_user = webhooks
            .endpoints(&Owner::User(anna.clone()))
            .await
            .unwrap();
        let because = of_user[0].disabled.as_ref().unwrap();
        assert_eq!(because.because, "gone");

        let deliveries = webhooks.deliveries(&DeliveryQuery::newest(10)).await;
        let deliveries = deliveries.unwrap();
        let states: Vec<_> = deliveries.iter().map(|delivery| delivery.state).collect();
        assert_eq!(states, [Cancelled, Delivered, Pending]);
        let pending = &deliveries[2];
        assert_eq!(pending.endpoint_id, of_operator.id);
        assert_eq!(pending.event_id, "00000000000000ff-1");
        let attempts = webhooks.attempts(pending.id).await.unwrap().unwrap();
        assert_eq!(attempts[0].status, Some(503));
        assert_eq!(attempts[0].response, "busy");

        let stored = |connection: &tidings_sqlite::rusqlite::Connection| {
            let row = connection.query_row(
                "SELECT timestamp, payload, user, free_at FROM webhook_event, webhook_lane
                 WHERE id = '00000000000000ff-1'",
                [],
                |row| {
                    Ok((
                        row.get::<_, i64>(0)?,
                        row.get::<_, String>(1)?,
                        row.get::<_, String>(2)?,
                        row.get::<_, i64>(3)?,
                    ))
                },
            )?;
            Ok::<_, StorageError>(row)
        };
        let (timestamp, payload, user, free_at) = database.read(stored).await.unwrap();
        assert_eq!(timestamp, 1_795_255_200_250_000);
        assert_eq!((&*payload, &*user), (r#"{"n":1.10}"#, "anna"));
        assert_eq!(free_at, 5_000_000);

        // The second start finds nothing to import.
        open_in(database).await.unwrap();
        assert_eq!(webhooks.count_pending().await.unwrap(), 1);
    }

    #[tokio::test]
    async fn keys_of_an_earlier_version_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidings.db");
        let database = Database::open(path, &Options::default()).unwrap();
        let old = &idempotency::STEPS[..1];
        database.migrate("idempotency", old).await.unwrap();
        let once = |key: &str| Once::new(IdempotencyKey::new(key).unwrap(), "/", b"{}");
        let fingerprint = once("one").fingerprint;
        let replies = [
            (
                "one",
                r#"{"id":"00000000000000ff-7","timestamp":"2026-11-21T10:00:00Z"}"#,
            ),
            (
                "many",
                r#"{"data":[{"id":"00000000000000ff-7","timestamp":"2026-11-21T10:00:00Z"}]}"#,
            ),
            (
                "unversioned",
                r#"{"id":"00000000000000ff-7","created_at":"2026-11-21T10:00:00Z"}"#,
            ),
        ];
        let now = jiff::Timestamp::now().as_microsecond();
        let write = move |tx: &Transaction<'_>| {
            for (key, reply) in replies {
                tx.execute(
                    "INSERT INTO idempotency VALUES (?1, ?2, ?3, ?4)",
                    (key, fingerprint, reply, now),
                )?;
            }
            Ok::<_, StorageError>(())
        };
        database.write(write).await.unwrap();

        let storage = open_in(database).await.unwrap();
        for (key, _) in replies {
            let payload = Payload::from_value(&1).unwrap();
            let user = UserId::new("anna").unwrap();
            let drafts = vec![Draft::new(user, EventType::new("t").unwrap(), payload)];
            let once = Some(once(key));
            let accepted = storage.records.accept(Accept { drafts, once }).await;
            let Accepted::Repeated(events) = accepted.unwrap() else {
                panic!("{key} was accepted again")
            };
            assert_eq!(events[0].id.to_string(), "00000000000000ff-7");
            assert_eq!(events[0].timestamp.to_string(), "2026-11-21T10:00:00Z");
        }
    }
}
