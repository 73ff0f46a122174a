//! A PostgreSQL schema for one test.

use std::ops::Deref;
use std::time::Duration;

use tidings_notify::postgres::{Config, PostgresOptions, PostgresStore};
pub(crate) use tidings_test_support::connect;

/// How long stores wait for a reply where they get one: the default is too short on a busy machine.
pub(crate) const PATIENT: Duration = Duration::from_secs(30);

/// A schema of its own on the server of `DATABASE_URL`, which goes when it is dropped.
pub(crate) struct Schema(tidings_test_support::Schema);

impl Deref for Schema {
    type Target = tidings_test_support::Schema;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Schema {
    pub(crate) async fn create() -> Self {
        Self(tidings_test_support::Schema::create().await)
    }

    pub(crate) async fn create_on(server: &str) -> Self {
        Self(tidings_test_support::Schema::create_on(server).await)
    }

    /// How stores find their tables here.
    pub(crate) fn config(&self) -> Config {
        let config = Config::new(&self.url()).unwrap();
        config.with_reply_limit(PATIENT)
    }

    pub(crate) async fn store(&self) -> PostgresStore {
        PostgresStore::open(self.config(), PostgresOptions::default())
            .await
            .unwrap()
    }
}
