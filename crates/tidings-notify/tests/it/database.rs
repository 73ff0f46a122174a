//! A PostgreSQL schema for one test.

use std::time::Duration;

use tidings_notify::postgres::{Config, PostgresOptions, PostgresStore};
use tidings_postgres::tokio_postgres::{self, NoTls};

/// How long stores wait for a reply where they get one: the default is too short on a busy machine.
pub(crate) const PATIENT: Duration = Duration::from_secs(30);

/// A schema of its own on the server of `DATABASE_URL`, which goes when it is dropped.
pub(crate) struct Schema {
    server: String,
    name: String,
}

impl Schema {
    pub(crate) async fn create() -> Self {
        let server = std::env::var("DATABASE_URL").expect(
            "DATABASE_URL names a PostgreSQL server; `scripts/services` runs a command with one",
        );
        Self::create_on(&server).await
    }

    pub(crate) async fn create_on(server: &str) -> Self {
        // Upper case: names must not be folded anywhere.
        let schema = Self {
            server: server.to_owned(),
            name: format!("Test{:016x}", fastrand::u64(..)),
        };
        run(
            &schema.server,
            &format!("CREATE SCHEMA \"{}\"", schema.name),
        )
        .await;
        schema
    }

    /// The URL of a connection that finds its tables here.
    pub(crate) fn url(&self) -> String {
        self.url_at(&self.server)
    }

    /// The same by way of another server, such as a proxy.
    pub(crate) fn url_at(&self, server: &str) -> String {
        let separator = if server.contains('?') { '&' } else { '?' };
        format!(
            "{server}{separator}options=-csearch_path%3D%22{}%22",
            self.name
        )
    }

    /// The same, for a store.
    pub(crate) fn config(&self) -> Config {
        let config = Config::new(&self.url()).unwrap();
        config.with_reply_limit(PATIENT)
    }

    pub(crate) async fn store(&self) -> PostgresStore {
        PostgresStore::open(self.config(), PostgresOptions::default())
            .await
            .unwrap()
    }

    /// A connection of the test's own.
    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        connect(&self.url()).await
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        // A test that has failed may have left a transaction open, which is not to hold it up.
        let statement = format!(
            "SET lock_timeout = '10s'; DROP SCHEMA \"{}\" CASCADE",
            self.name
        );
        let server = self.server.clone();
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                // The server may be cleaning these tables at the moment.
                for _ in 0..3 {
                    let client = connect(&server).await;
                    if client.batch_execute(&statement).await.is_ok() {
                        return;
                    }
                }
                run(&server, &statement).await;
            });
        });
        // A test that has failed should say why, and not this.
        let dropped = dropping.join().is_ok() || std::thread::panicking();
        assert!(dropped, "the schema of a test is left over");
    }
}

pub(crate) async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    // It ends with the client.
    tokio::spawn(connection);
    client
}

async fn run(server: &str, statement: &str) {
    connect(server)
        .await
        .batch_execute(statement)
        .await
        .unwrap();
}
