//! `cargo run -p tidings-import --example import_counter -- postgres://tidings:password@db.example.com/tidings`
//!
//! Moves a table with three rows from a SQLite file to a PostgreSQL database. It is refused when the database has rows
//! of it already: then it removes them, so that it can be run again.

#![allow(clippy::print_stdout, reason = "an example prints what happens")]

use std::error::Error;

use tidings_import::{Part, Source, Table, lock};
use tidings_postgres::Config;
use tidings_sqlite::{Database, Error as SqliteError, Options};

const PARTS: &[Part] = &[Part {
    component: "tidings_example_import",
    version: 1,
    data: &["tidings_example_import"],
    lease: None,
    tables: &[Table {
        name: "tidings_example_import",
        columns: "n",
        select: "n",
        from: "counter",
        with: None,
    }],
    sequences: &[],
}];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args()
        .nth(1)
        .ok_or("expected the URL of a database")?;
    let target = Config::new(&url)?;
    let database = tidings_postgres::Database::new(target.clone());
    let tables = ["CREATE TABLE tidings_example_import (n bigint NOT NULL)"];
    database.migrate("tidings_example_import", &tables).await?;

    let folder = tempfile::tempdir()?;
    let file = Database::open(folder.path().join("counter.db"), &Options::default())?;
    let steps = &["CREATE TABLE counter (n INTEGER NOT NULL)"];
    file.migrate("tidings_example_import", steps).await?;
    file.write(|transaction| {
        Ok::<_, SqliteError>(transaction.execute("INSERT INTO counter VALUES (1), (2), (3)", [])?)
    })
    .await?;

    let source = Source::check(file, PARTS).await?;
    let imported = async {
        let locked = lock(&source, &target).await?;
        locked.copy(|_progress| {}).await?.finish().await
    };
    match imported.await {
        Ok(rows) => println!("imported {rows} rows"),
        Err(error) => {
            println!("refused: {error}");
            let delete = "DELETE FROM tidings_example_import";
            database
                .run(move |client| async move { client.execute_typed(delete, &[]).await })
                .await?;
        }
    }
    Ok(())
}
