use std::time::Duration;

use tidings_postgres::{Config, Database};
use tidings_test_support::soon;

/// The server that the tests run against.
pub(crate) fn url() -> String {
    std::env::var("DATABASE_URL").expect("DATABASE_URL is set; scripts/services does so")
}

pub(crate) fn database(url: &str) -> Database {
    limited(url, Duration::from_secs(20))
}

/// One that waits so long for a reply.
pub(crate) fn limited(url: &str, reply_limit: Duration) -> Database {
    Database::new(Config::new(url).unwrap().with_reply_limit(reply_limit))
}

/// Makes a schema of one test's own, and returns the URL that leads to it.
pub(crate) async fn schema(name: &str) -> String {
    let name = format!("test_{name}_{}", std::process::id());
    execute(&database(&url()), format!("CREATE SCHEMA {name}")).await;
    format!("{}?options=-csearch_path%3D{name}", url())
}

pub(crate) async fn execute(database: &Database, statements: impl Into<String>) {
    let statements = statements.into();
    let done = database.run(|client| async move { client.batch_execute(&statements).await });
    soon("a reply", done).await.unwrap();
}

pub(crate) async fn number(database: &Database, query: &'static str) -> i64 {
    let row = database.run(|client| async move { client.query_typed_one(query, &[]).await });
    soon("a reply", row).await.unwrap().get(0)
}
