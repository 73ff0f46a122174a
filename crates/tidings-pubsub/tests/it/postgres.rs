//! What is particular to PostgreSQL.

use tidings_pubsub::{Postgres, PostgresConfig};

/// The server that the tests run against.
pub(crate) fn url() -> String {
    std::env::var("DATABASE_URL").expect("DATABASE_URL is set; scripts/services does so")
}

pub(crate) fn broker() -> Postgres {
    Postgres::new(PostgresConfig::new(&url()).unwrap())
}
