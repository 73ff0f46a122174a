//! A PostgreSQL schema for one test.

use tidings_postgres::{Config, Database};
use tidings_webhooks::postgres::{PostgresOptions, PostgresStore};

/// A schema of its own on the server of `DATABASE_URL`, which goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Schema {
    server: String,
    name: String,
}

impl Schema {
    pub(crate) async fn create() -> Self {
        let server = std::env::var("DATABASE_URL").expect(
            "DATABASE_URL names a PostgreSQL server; `scripts/services` runs a command with one",
        );
        // Upper case: names must not be folded anywhere.
        let schema = Self {
            server,
            name: format!("Test{:016x}", fastrand::u64(..)),
        };
        run(&schema.server, format!("CREATE SCHEMA \"{}\"", schema.name)).await;
        schema
    }

    /// Where a connection finds its tables here.
    pub(crate) fn config(&self) -> Config {
        let separator = if self.server.contains('?') { '&' } else { '?' };
        let (server, name) = (&self.server, &self.name);
        let url = format!("{server}{separator}options=-csearch_path%3D%22{name}%22");
        Config::new(&url).unwrap()
    }

    pub(crate) async fn store(&self) -> PostgresStore {
        PostgresStore::open(self.config(), PostgresOptions::default())
            .await
            .unwrap()
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let statement = format!(
            "SET lock_timeout = '10s'; DROP SCHEMA \"{}\" CASCADE",
            self.name
        );
        let server = self.server.clone();
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(run(&server, statement));
        });
        // A test that has failed should say why, and not this.
        let is_dropped = dropping.join().is_ok() || std::thread::panicking();
        assert!(is_dropped, "the schema of a test is left over");
    }
}

async fn run(server: &str, statement: String) {
    let database = Database::new(Config::new(server).unwrap());
    database
        .run(|client| async move { client.batch_execute(&statement).await })
        .await
        .unwrap();
}
