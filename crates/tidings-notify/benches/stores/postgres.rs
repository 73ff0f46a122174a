use std::sync::Arc;

use tidings_group_commit::{Calls, Queue, Request};
use tidings_notify::postgres::{Config, PostgresOptions, PostgresStore, tokio_postgres};
use tidings_notify::{Draft, Epoch, Store};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};

use crate::raw::Raw;

/// One connection, with one statement for all that wait.
pub(crate) struct Alone(Queue<Batch, usize>);

/// What one caller appends.
#[derive(Debug)]
pub(crate) struct Batch(Vec<Draft>);

impl Request for Batch {
    fn items(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|it| it.payload().as_str().len()).sum()
    }
}

/// The same as those of the store.
const TABLES: &str = include_str!("../../src/store/postgres/schema/tables.sql");

const APPEND: &str = "
    WITH given AS (
        SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY n) AS place
        FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[]) WITH ORDINALITY
            AS all_given (user_id, type, payload, stamp, epoch, n)
    ), total AS (
        SELECT user_id, count(*) AS events, max(stamp) AS latest, min(epoch) AS epoch
        FROM given GROUP BY user_id
    ), taken AS (
        INSERT INTO tidings_notify_log AS log
            (user_id, epoch, line, top_seq, unread, unseen, latest_at, stored_at)
        SELECT user_id, epoch, 0, events, events, events, latest,
            (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
        FROM total ORDER BY user_id
        ON CONFLICT (user_id) DO UPDATE SET top_seq = log.top_seq + excluded.top_seq,
            unread = log.unread + excluded.unread, unseen = log.unseen + excluded.unseen,
            latest_at = greatest(log.latest_at, excluded.latest_at),
            stored_at = excluded.stored_at, changed = excluded.changed
        RETURNING id, user_id, epoch, top_seq, latest_at, stored_at
    ), placed AS (
        SELECT given.*, taken.id, taken.epoch AS log_epoch, taken.latest_at, taken.stored_at,
            taken.top_seq - total.events + given.place AS seq
        FROM given JOIN taken USING (user_id) JOIN total USING (user_id)
    ), added AS (
        INSERT INTO tidings_notify_event
            (log, seq, timestamp, latest_at, stored_at, type, payload)
        SELECT id, seq, stamp, latest_at, stored_at, type, payload FROM placed
    )
    SELECT n, log_epoch, seq FROM placed";

pub(crate) async fn engines() -> (Arc<dyn Store>, Alone) {
    let server = std::env::var("DATABASE_URL").expect("scripts/services sets DATABASE_URL");
    let admin = connect(&server).await;
    let schema = format!("bench_{:016x}", fastrand::u64(..));
    let alone = format!("{schema}_alone");
    admin
        .batch_execute(&format!("CREATE SCHEMA {schema}; CREATE SCHEMA {alone}"))
        .await
        .unwrap();
    let url = |schema: &str| format!("{server}?options=-csearch_path%3D{schema}");
    let config = Config::new(&url(&schema)).unwrap();
    let store = PostgresStore::open(config, PostgresOptions::default());
    let client = connect(&url(&alone)).await;
    client.batch_execute(TABLES).await.unwrap();
    let statement = client.prepare(APPEND).await.unwrap();
    let (queue, calls) = tidings_group_commit::queue();
    tokio::spawn(commit(client, statement, calls));
    (Arc::new(store.await.unwrap()), Alone(queue))
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn commit(client: Client, statement: Statement, mut waiting: Calls<Batch, usize>) {
    while waiting.wait().await {
        while let Some(calls) = waiting.next_batch() {
            let drafts = || calls.iter().flat_map(|call| &call.request.0);
            let users: Vec<&str> = drafts().map(|it| it.user().as_str()).collect();
            let types: Vec<&str> = drafts().map(|it| it.event_type().as_str()).collect();
            let payloads: Vec<&str> = drafts().map(|it| it.payload().as_str()).collect();
            let stamps: Vec<i64> = drafts().map(|it| it.timestamp().as_microsecond()).collect();
            let epoch = Epoch::random().as_u64().cast_signed();
            let epochs = vec![epoch; users.len()];
            let parameters: [&(dyn ToSql + Sync); 5] =
                [&users, &types, &payloads, &stamps, &epochs];
            let rows = client.query(&statement, &parameters).await.unwrap();
            let ids: Vec<(i64, i64, i64)> = rows
                .iter()
                .map(|it| (it.get(0), it.get(1), it.get(2)))
                .collect();
            assert_eq!(ids.len(), users.len());
            for call in calls {
                let count = call.request.0.len();
                call.reply(count);
            }
        }
    }
}

impl Raw for Alone {
    async fn append(&self, drafts: Vec<Draft>) -> usize {
        self.0.call(Batch(drafts)).await.unwrap()
    }
}
