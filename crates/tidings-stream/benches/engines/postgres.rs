use std::sync::Arc;
use tidings_stream::engine::Engine;
use tidings_stream::postgres::{Config, PostgresEngine, PostgresOptions, tokio_postgres};
use tokio_postgres::{Client, NoTls, Statement};

use crate::raw::{PAYLOAD, Raw};

/// Two connections, one of which waits for no disk, with one row per message and one per claim.
pub(crate) struct Alone {
    publishing: Client,
    consuming: Client,
    publish: Statement,
    claim: Statement,
    acknowledge: Statement,
}

const TABLES: &str = "
    CREATE TABLE stream (head bigint NOT NULL) WITH (fillfactor = 50);
    INSERT INTO stream VALUES (0);
    CREATE TABLE message (number bigint PRIMARY KEY, created_at timestamptz NOT NULL,
                          payload bytea NOT NULL, headers jsonb);
    ALTER TABLE message ALTER payload SET STORAGE EXTERNAL;
    CREATE TABLE consumers (cursor bigint NOT NULL) WITH (fillfactor = 50);
    INSERT INTO consumers VALUES (0);
    CREATE TABLE lease (lo bigint NOT NULL, hi bigint PRIMARY KEY, deadline timestamptz NOT NULL)
        WITH (fillfactor = 50);";

const PUBLISH: &str = "
    WITH taken AS (UPDATE stream SET head = head + cardinality($1::bytea[]) RETURNING head)
    INSERT INTO message
    SELECT head - cardinality($1) + n, clock_timestamp(), payload, NULL
    FROM taken, unnest($1) WITH ORDINALITY AS m (payload, n)";

const CLAIM: &str = "
    WITH place AS MATERIALIZED (SELECT cursor FROM consumers FOR UPDATE),
    range AS MATERIALIZED (
        SELECT cursor + 1 AS lo, least(head, cursor + $1) AS hi FROM place, stream),
    moved AS (UPDATE consumers SET cursor = hi FROM range),
    leased AS (INSERT INTO lease
        SELECT lo, hi, clock_timestamp() + interval '30 s' FROM range WHERE hi >= lo)
    SELECT number, created_at, payload, headers FROM message
    WHERE number BETWEEN (SELECT lo FROM range) AND (SELECT hi FROM range) ORDER BY number";

pub(crate) async fn engines() -> (Arc<dyn Engine>, Alone) {
    let server = std::env::var("DATABASE_URL").expect("scripts/services sets DATABASE_URL");
    let admin = connect(&server).await;
    let schema = format!("bench_{:016x}", fastrand::u64(..));
    admin
        .batch_execute(&format!("CREATE SCHEMA {schema}"))
        .await
        .unwrap();
    let url = |schema: &str| format!("{server}?options=-csearch_path%3D{schema}");
    let config = Config::new(&url(&schema)).unwrap();
    let engine = PostgresEngine::open(config, PostgresOptions::default())
        .await
        .unwrap();

    let alone = format!("{schema}_alone");
    admin
        .batch_execute(&format!("CREATE SCHEMA {alone}"))
        .await
        .unwrap();
    let (publishing, consuming) = (connect(&url(&alone)).await, connect(&url(&alone)).await);
    publishing.batch_execute(TABLES).await.unwrap();
    // A claim must not be compiled each time because the planner has no statistics yet.
    consuming
        .batch_execute("SET synchronous_commit = off; SET jit = off")
        .await
        .unwrap();
    let alone = Alone {
        publish: publishing.prepare(PUBLISH).await.unwrap(),
        claim: consuming.prepare(CLAIM).await.unwrap(),
        acknowledge: consuming
            .prepare("DELETE FROM lease WHERE hi = $1")
            .await
            .unwrap(),
        publishing,
        consuming,
    };
    (Arc::new(engine), alone)
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Raw for Alone {
    async fn publish(&self, batch: usize) {
        let payloads = vec![&PAYLOAD[..]; batch];
        self.publishing
            .execute(&self.publish, &[&payloads])
            .await
            .unwrap();
    }

    async fn consume(&self, batch: usize) -> usize {
        let batch = i64::try_from(batch).unwrap();
        let rows = self.consuming.query(&self.claim, &[&batch]).await.unwrap();
        let messages: Vec<(i64, Vec<u8>)> =
            rows.iter().map(|row| (row.get(0), row.get(2))).collect();
        if let Some((last, _)) = messages.last() {
            self.consuming
                .execute(&self.acknowledge, &[last])
                .await
                .unwrap();
        }
        messages.len()
    }

    /// With a lock per stream and a notification, as is often seen.
    async fn publish_one_per_transaction(&self) -> Option<()> {
        for statement in ["BEGIN", "SELECT pg_advisory_xact_lock(1)"] {
            self.publishing.batch_execute(statement).await.unwrap();
        }
        self.publish(1).await;
        for statement in ["SELECT pg_notify('bench', '')", "COMMIT"] {
            self.publishing.batch_execute(statement).await.unwrap();
        }
        Some(())
    }
}
