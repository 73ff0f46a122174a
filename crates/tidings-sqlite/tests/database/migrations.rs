//! Steps that make the tables.

use tidings_sqlite::Error;

use crate::{SCHEMA, count, insert, open};

#[tokio::test]
async fn migrations_run_once_and_refuse_a_newer_file() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    insert(&database, 7).await.unwrap();
    database.migrate("test", SCHEMA).await.unwrap();
    database
        .migrate(
            "test",
            &["never run", "ALTER TABLE item ADD COLUMN name TEXT"],
        )
        .await
        .unwrap();
    assert_eq!(count(&database).await, 1);
    let refused = database.migrate("test", SCHEMA).await.unwrap_err();
    assert!(matches!(
        refused,
        Error::NewerSchema {
            found: 2,
            known: 1,
            ..
        }
    ));
}

#[tokio::test]
async fn a_failed_migration_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    let steps = &["CREATE TABLE half (n)", "this is no SQL"];
    database.migrate("broken", steps).await.unwrap_err();
    database
        .migrate("broken", &["CREATE TABLE half (n)"])
        .await
        .unwrap();
}
