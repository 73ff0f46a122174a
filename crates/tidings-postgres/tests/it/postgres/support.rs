use std::time::Duration;

use tidings_postgres::{Config, Database};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The server that the tests run against.
pub(crate) fn url() -> String {
    std::env::var("DATABASE_URL").expect("DATABASE_URL is set; scripts/services does so")
}

pub(crate) fn database(url: &str) -> Database {
    let config = Config::new(url).unwrap();
    Database::new(config.with_reply_limit(Duration::from_secs(2)))
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
    within("a reply", done).await.unwrap();
}

pub(crate) async fn number(database: &Database, query: &'static str) -> i64 {
    let row = database.run(|client| async move { client.query_typed_one(query, &[]).await });
    within("a reply", row).await.unwrap().get(0)
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, future).await;
    done.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}"))
}
