use std::sync::Arc;

use tidings_notify::Store;
use tidings_notify::postgres::{Config, PostgresOptions, PostgresStore, tokio_postgres};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};

use crate::raw::{Raw, TYPE, payload};

/// One connection, with one statement for a batch.
pub(crate) struct Alone {
    client: Client,
    append: Statement,
}

const TABLES: &str = "
    CREATE TABLE log (user_id text COLLATE \"C\" PRIMARY KEY, top bigint NOT NULL, unread bigint)
        WITH (fillfactor = 70);
    CREATE TABLE event (user_id text COLLATE \"C\", seq bigint, at timestamptz NOT NULL,
                        type text NOT NULL, payload text NOT NULL, PRIMARY KEY (user_id, seq));";

const APPEND: &str = "
    WITH given AS (
        SELECT user_id, payload, row_number() OVER (PARTITION BY user_id ORDER BY n) AS place
        FROM unnest($1::text[], $3::text[]) WITH ORDINALITY AS all_given (user_id, payload, n)
    ), taken AS (
        INSERT INTO log AS log SELECT user_id, count(*), count(*) FROM given GROUP BY user_id
        ORDER BY user_id
        ON CONFLICT (user_id) DO UPDATE SET top = log.top + excluded.top,
            unread = log.unread + excluded.unread
        RETURNING user_id, top
    ), total AS (
        SELECT user_id, count(*) AS events FROM given GROUP BY user_id
    )
    INSERT INTO event
    SELECT given.user_id, taken.top - total.events + given.place, clock_timestamp(), $2, given.payload
    FROM given JOIN taken USING (user_id) JOIN total USING (user_id)
    RETURNING seq";

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
    let append = client.prepare(APPEND).await.unwrap();
    (Arc::new(store.await.unwrap()), Alone { client, append })
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Raw for Alone {
    async fn append(&self, users: usize, events: usize) {
        let users: Vec<_> = (0..events)
            .map(|it| format!("user-{}", it % users))
            .collect();
        let payloads = vec![payload(); events];
        let parameters: [&(dyn ToSql + Sync); 3] = [&users, &TYPE, &payloads];
        let rows = self.client.query(&self.append, &parameters).await;
        assert_eq!(rows.unwrap().len(), events);
    }
}
