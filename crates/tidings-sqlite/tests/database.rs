//! What the shared SQLite file promises, through its public functions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use tidings_sqlite::{Database, Error, Options};

const SCHEMA: &[&str] = &["CREATE TABLE item (n INTEGER PRIMARY KEY) STRICT"];

async fn open(folder: &tempfile::TempDir) -> Database {
    let database = Database::open(folder.path().join("test.db"), &Options::default()).unwrap();
    database.migrate("test", SCHEMA).await.unwrap();
    database
}

async fn insert(database: &Database, n: i64) -> Result<(), Error> {
    database
        .write(move |tx| {
            tx.execute("INSERT INTO item VALUES (?1)", [n])?;
            Ok(())
        })
        .await
}

async fn count(database: &Database) -> i64 {
    database
        .read::<_, Error, _>(|connection| {
            Ok(connection.query_row("SELECT count(*) FROM item", [], |row| row.get(0))?)
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn a_job_that_fails_is_rolled_back_alone() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    // Holding the writer makes the jobs that follow share one batch.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let holder = database.write(move |_| {
        held.recv().unwrap();
        Ok::<_, Error>(())
    });
    let good = insert(&database, 1);
    let bad = database.write(|tx| {
        tx.execute("INSERT INTO item VALUES (2)", [])?;
        tx.execute("INSERT INTO item VALUES (1)", [])?;
        Ok::<_, Error>(())
    });
    let panicking = database.write(|tx| -> Result<(), Error> {
        tx.execute("INSERT INTO item VALUES (3)", [])?;
        panic!("a job of a careless caller")
    });
    let last = insert(&database, 4);
    let unblock = async { release.send(()).unwrap() };
    let (holder, good, bad, panicking, last, ()) =
        tokio::join!(holder, good, bad, panicking, last, unblock);

    holder.unwrap();
    good.unwrap();
    last.unwrap();
    assert!(bad.unwrap_err().is_constraint_violation());
    assert!(matches!(panicking.unwrap_err(), Error::Panicked));
    assert_eq!(count(&database).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writes_all_commit_and_survive_a_reopen() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    let writers: Vec<_> = (0..64)
        .map(|writer| {
            let database = database.clone();
            tokio::spawn(async move {
                for i in 0..50 {
                    insert(&database, writer * 50 + i).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    database.close().await;
    assert_eq!(count(&open(&folder).await).await, 64 * 50);
}

#[tokio::test]
async fn relaxed_writes_are_seen_by_the_next_read() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    database
        .write_relaxed(|tx| {
            tx.execute("INSERT INTO item VALUES (1)", [])?;
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
    assert_eq!(count(&database).await, 1);
}

#[tokio::test]
async fn calls_after_close_answer_closed() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    let clone = database.clone();
    database.close().await;
    database.close().await;
    assert!(matches!(insert(&clone, 1).await, Err(Error::Closed)));
    let read = clone.read::<(), Error, _>(|_| Ok(())).await;
    assert!(matches!(read, Err(Error::Closed)));
}

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

#[tokio::test]
async fn an_exclusive_file_is_refused_to_a_second_opener() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    let options = Options::default().with_exclusive_lock();
    let first = Database::open(&path, &options).unwrap();
    let refused = Database::open(&path, &options).unwrap_err();
    assert!(matches!(refused, Error::InUse { .. }), "{refused:?}");
    first.close().await;
    drop(first);
    Database::open(&path, &options).unwrap();
}

#[tokio::test]
async fn a_folder_that_does_not_exist_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing").join("test.db");
    let refused = Database::open(path, &Options::default()).unwrap_err();
    assert!(matches!(refused, Error::Create { .. }), "{refused:?}");
}

#[test]
fn names_of_databases_without_a_file_are_refused() {
    for name in ["", ":memory:", "file::memory:", "file:a.db?mode=memory"] {
        let refused = Database::open(name, &Options::default().with_exclusive_lock()).unwrap_err();
        assert!(matches!(refused, Error::NotAFile { .. }), "{refused:?}");
        assert_eq!(
            refused.to_string(),
            format!("expected the path of a database file, got `{name}`")
        );
        assert!(!std::path::Path::new(&format!("{name}.lock")).exists());
    }
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_made_belongs_to_the_owner_alone() {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let options = Options::default().with_exclusive_lock();
    let database = Database::open(folder.path().join("test.db"), &options).unwrap();
    database.migrate("test", SCHEMA).await.unwrap();
    insert(&database, 1).await.unwrap();
    let modes: BTreeMap<_, _> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            (entry.file_name().into_string().unwrap(), mode)
        })
        .collect();
    let expected = ["test.db", "test.db-shm", "test.db-wal", "test.db.lock"];
    assert_eq!(modes, expected.map(|name| (name.to_owned(), 0o600)).into());
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_exists_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    insert(&open(&folder).await, 1).await.unwrap();
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path), 0o640);
    assert_eq!(mode(folder.path().join("test.db-wal")), 0o640);
}

/// A full disk is played by SQLite's own page limit, which fails the same way.
#[tokio::test]
async fn a_full_disk_fails_writes_with_its_name_and_reads_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    insert(&database, 1).await.unwrap();
    let limit = |pages: i64| {
        database.write(move |tx| {
            tx.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
            Ok::<_, Error>(())
        })
    };
    limit(1).await.unwrap();
    let grow = || {
        database.write(|tx| {
            tx.execute_batch(
                "CREATE TABLE bulk AS WITH RECURSIVE n(i) AS
                     (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i FROM n",
            )?;
            Ok::<_, Error>(())
        })
    };
    assert!(grow().await.unwrap_err().is_full());
    assert_eq!(count(&database).await, 1);
    limit(1_000_000).await.unwrap();
    grow().await.unwrap();
}

#[test]
fn the_lock_ends_with_the_process_that_holds_it() {
    // The child is this test binary, told by a variable to take the lock and die without a word.
    const CHILD: &str = "TIDINGS_SQLITE_TEST_CHILD";
    if let Ok(path) = std::env::var(CHILD) {
        let options = Options::default().with_exclusive_lock();
        std::mem::forget(Database::open(path, &options).unwrap());
        std::process::abort();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_lock_ends_with_the_process_that_holds_it"])
        .env(CHILD, &path)
        .output()
        .unwrap()
        .status;
    assert!(!status.success());
    Database::open(&path, &Options::default().with_exclusive_lock()).unwrap();
}
