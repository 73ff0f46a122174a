//! `cargo run -p tidings-sqlite --example sqlite_counter`
//!
//! A hundred callers write at once, and share a few commits; a file that is thrown away in the end.

#![allow(clippy::print_stdout, reason = "an example prints what happens")]

use futures_util::future::try_join_all;
use tidings_sqlite::{Database, Error, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let database = Database::open(folder.path().join("counter.db"), &Options::default())?;
    let steps = &["CREATE TABLE counter (n INTEGER NOT NULL)"];
    database.migrate("counter", steps).await?;

    // Each returns when its commit is on disk.
    let add = |n: i64| {
        database.write(move |transaction| {
            Ok::<_, Error>(transaction.execute("INSERT INTO counter VALUES (?1)", [n])?)
        })
    };
    let started = std::time::SystemTime::now();
    try_join_all((1..=100).map(add)).await?;
    println!("100 durable writes in {:?}", started.elapsed()?);

    let sum = |connection: &tidings_sqlite::rusqlite::Connection| {
        connection.query_row("SELECT sum(n) FROM counter", [], |row| row.get::<_, i64>(0))
    };
    println!(
        "their sum is {}",
        database
            .read(move |connection| Ok::<_, Error>(sum(connection)?))
            .await?
    );
    database.close().await;
    Ok(())
}
