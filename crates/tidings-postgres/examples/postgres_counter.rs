//! `cargo run -p tidings-postgres --example postgres_counter -- postgres://tidings:password@db.example.com/tidings`
//!
//! Makes a table once, and counts how often this was run.

#![allow(clippy::print_stdout, reason = "an example prints what happens")]

use tidings_postgres::{Config, Database};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args()
        .nth(1)
        .ok_or("expected the URL of a database")?;
    let database = Database::new(Config::new(&url)?);
    let steps = ["CREATE TABLE tidings_example_counter (n bigint NOT NULL DEFAULT 1)"];
    database.migrate("tidings_example_counter", &steps).await?;

    // The connection is made when it is first needed, and made again after it breaks.
    let count = "INSERT INTO tidings_example_counter DEFAULT VALUES";
    database
        .run(move |client| async move { client.execute_typed(count, &[]).await })
        .await?;
    let sum = "SELECT count(*) FROM tidings_example_counter";
    let rows = database
        .run(move |client| async move { client.query_typed(sum, &[]).await })
        .await?;
    println!("run {} times", rows[0].get::<_, i64>(0));
    Ok(())
}
