//! What the shared SQLite file promises, through its public functions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::{Connection, StatementStatus};
use tidings_sqlite::{Database, Error, Fault, Options, rusqlite};
use tokio::time::Instant;

const SCHEMA: &[&str] = &["CREATE TABLE item (n INTEGER PRIMARY KEY) STRICT"];

/// Whether the row was there before.
fn is_duplicate(error: &Error) -> bool {
    let Error::Sqlite(source) = error else {
        return false;
    };
    source.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
}

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

/// How often a statement that is kept was compiled again.
fn recompiled(connection: &Connection) -> Result<i32, Error> {
    let kept = || connection.prepare_cached("SELECT n FROM item ORDER BY n LIMIT ?1");
    for limit in 0..10 {
        let mut statement = kept()?;
        let mut rows = statement.query([limit])?;
        while rows.next()?.is_some() {}
    }
    Ok(kept()?.get_status(StatementStatus::RePrepare))
}

/// SQLite would compile statements whose plans depend on bound values, such as the one of a `LIMIT`, for
/// each execution.
#[tokio::test]
async fn regression_statements_that_are_kept_are_compiled_once() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    insert(&database, 1).await.unwrap();
    assert_eq!(database.write(|tx| recompiled(tx)).await.unwrap(), 0);
    assert_eq!(database.read(recompiled).await.unwrap(), 0);
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
    assert!(is_duplicate(&bad.unwrap_err()));
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

/// Counts without end.
const ENDLESS: &str = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)
    SELECT count(*) FROM n";

async fn endless_list(database: &Database) -> Result<i64, Error> {
    let count = |connection: &rusqlite::Connection| {
        Ok(connection.query_row(ENDLESS, [], |row| row.get(0))?)
    };
    database.list(count).await
}

#[tokio::test]
async fn a_list_that_takes_too_long_is_ended_and_delays_no_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    let options = Options::default().with_list_timeout(Duration::from_millis(300));
    let database = Database::open(path, &options).unwrap();
    database.migrate("test", SCHEMA).await.unwrap();
    insert(&database, 1).await.unwrap();

    let lists = futures_util::future::join_all((0..8).map(|_| endless_list(&database)));
    let mut lists = std::pin::pin!(lists);
    let mut reads = 0;
    let ended = loop {
        futures_util::select_biased! {
            ended = futures_util::FutureExt::fuse(&mut lists) => break ended,
            read = futures_util::FutureExt::fuse(Box::pin(count(&database))) => reads += read,
        }
    };
    // More than could have been read between two lists.
    assert!(reads > 20, "{reads} reads while lists ran");
    assert!(
        ended.iter().all(|list| matches!(list, Err(Error::TooSlow))),
        "{ended:?}"
    );

    // The thread is free again, and what it read is not interrupted by an earlier deadline.
    let listed = database.list::<_, Error, _>(|connection| {
        Ok(connection.query_row("SELECT count(*) FROM item", [], |row| row.get::<_, i64>(0))?)
    });
    assert_eq!(listed.await.unwrap(), 1);
}

#[tokio::test]
async fn calls_after_close_reply_closed() {
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
    let Error::Create { source, .. } = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(source.to_string(), "its folder does not exist");
}

#[tokio::test]
async fn a_log_that_is_no_file_is_explained_in_words_of_the_house() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("test.db-wal")).unwrap();
    let path = folder.path().join("test.db");
    let refused = Database::open(path, &Options::default()).unwrap_err();
    let Error::Unusable(fault) = refused else {
        panic!("{refused:?}");
    };
    assert!(matches!(fault, Fault::Disk | Fault::CannotOpen), "{fault}");
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

#[test]
fn what_is_no_database_is_refused_by_what_it_is_and_gets_no_files_beside_it() {
    let options = Options::default()
        .with_exclusive_lock()
        .with_application_id(1);
    for (bytes, is_folder) in [
        (0, true),
        (1, false),
        (511, false),
        (512, false),
        (5000, false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = std::fs::canonicalize(folder.path()).unwrap().join("a.db");
        let text = vec![b'x'; bytes];
        if is_folder {
            std::fs::create_dir(&path).unwrap();
        } else {
            std::fs::write(&path, &text).unwrap();
        }
        let refused = Database::open(&path, &options).unwrap_err().to_string();
        let path_text = path.display();
        let says = if is_folder {
            format!("expected the path of a database file, got the folder `{path_text}`")
        } else {
            assert_eq!(std::fs::read(&path).unwrap(), text);
            format!("the file {path_text} is not a SQLite database")
        };
        assert_eq!(refused, says);
        let beside = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(beside, 1, "{bytes} bytes");
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
    // The child is this test binary, which a variable causes to take the lock and die without a word.
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

/// A connection of another process, as far as SQLite's locks are concerned.
fn other_process(database: &Database) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(database.path()).unwrap();
    connection.busy_timeout(Duration::from_secs(2)).unwrap();
    connection
}

/// Takes about so many milliseconds on the writer.
fn work(tx: &rusqlite::Transaction<'_>, milliseconds: u64) -> Result<(), Error> {
    let until = Instant::now() + Duration::from_millis(milliseconds);
    while Instant::now() < until {
        tx.query_row("SELECT count(*) FROM item", [], |_| Ok(()))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_a_flood_of_slow_jobs_lets_another_process_write() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    // Four seconds in all; as one transaction they would keep all other writers out for as long.
    let jobs: Vec<_> = (0..400)
        .map(|_| {
            let database = database.clone();
            tokio::spawn(async move { database.write(|tx| work(tx, 10)).await })
        })
        .collect();
    let mut other = other_process(&database);
    // It looks without a pause: SQLite's own pauses, of up to 100 ms, may miss turn after turn.
    let look_again = |_looks| {
        std::thread::yield_now();
        true
    };
    other.busy_handler(Some(look_again)).unwrap();
    let inserted = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        for n in 0..3 {
            other.execute("INSERT INTO item VALUES (?1)", [n]).unwrap();
        }
        begun.elapsed()
    });
    let waited = inserted.await.unwrap();
    let unfinished = jobs.iter().filter(|job| !job.is_finished()).count();
    assert!(unfinished > 0, "the flood was over after {waited:?}");
    for job in jobs {
        job.await.unwrap().unwrap();
    }
    assert_eq!(count(&database).await, 3);
}

#[tokio::test]
async fn regression_a_lock_of_another_process_is_called_busy_and_nothing_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    let other = other_process(&database);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = insert(&database, 1).await.unwrap_err();
    assert!(refused.is_busy() && refused.is_unavailable(), "{refused:?}");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(count(&database).await, 0);
    insert(&database, 1).await.unwrap();
    // What is wrong with the caller's statement is not local trouble.
    let duplicate = insert(&database, 1).await.unwrap_err();
    assert!(is_duplicate(&duplicate) && !duplicate.is_unavailable());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_the_lock_is_held_until_what_is_queued_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    let options = Options::default().with_exclusive_lock();
    let database = Database::open(&path, &options).unwrap();
    database.migrate("test", SCHEMA).await.unwrap();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (start, started) = tokio::sync::oneshot::channel();
    let mut holding = Box::pin(database.write(move |_| {
        start.send(()).unwrap();
        held.recv().unwrap();
        Ok::<_, Error>(())
    }));
    tokio::select! {
        held = &mut holding => panic!("{held:?}"),
        started = started => started.unwrap(),
    }
    let mut last = Box::pin(insert(&database, 1));
    assert!(futures_util::poll!(&mut last).is_pending());
    // The callers drop their futures, and the last handle.
    drop((holding, last));
    drop(database);
    let refused = Database::open(&path, &options).unwrap_err();
    assert!(matches!(refused, Error::InUse { .. }), "{refused:?}");
    release.send(()).unwrap();
    let reopened = loop {
        match Database::open(&path, &options) {
            Ok(database) => break database,
            Err(Error::InUse { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error:?}"),
        }
    };
    assert_eq!(count(&reopened).await, 1, "what was queued is written");
}

#[cfg(unix)]
#[tokio::test]
async fn regression_symbolic_links_lead_to_the_same_lock() {
    use std::os::unix::fs::symlink;

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.db");
    let (link, chain) = (
        folder.path().join("link.db"),
        folder.path().join("chain.db"),
    );
    // Before there is a file, and through a folder as well.
    symlink("test.db", &link).unwrap();
    symlink("link.db", &chain).unwrap();
    let linked_folder = folder.path().join("folder");
    symlink(folder.path(), &linked_folder).unwrap();
    let options = Options::default().with_exclusive_lock();
    let first = Database::open(&chain, &options).unwrap();
    assert_eq!(first.path(), file.canonicalize().unwrap());
    for path in [&file, &link, &chain, &linked_folder.join("test.db")] {
        let refused = Database::open(path, &options).unwrap_err();
        assert!(
            matches!(refused, Error::InUse { .. }),
            "{path:?}: {refused:?}"
        );
    }
    symlink("circle.db", folder.path().join("circle.db")).unwrap();
    Database::open(folder.path().join("circle.db"), &options).unwrap_err();
}

#[tokio::test]
async fn regression_the_file_of_another_program_is_refused_and_stays_as_it_is() {
    const ID: i32 = 0x7469_6469;
    let folder = tempfile::tempdir().unwrap();
    let options = Options::default().with_application_id(ID);
    let other = folder.path().join("other.db");
    for setup in [
        "CREATE TABLE song (title TEXT)",
        "PRAGMA application_id = 42; CREATE TABLE tidings_schema (n)",
        "PRAGMA application_id = 42",
    ] {
        let connection = rusqlite::Connection::open(&other).unwrap();
        connection.execute_batch(setup).unwrap();
        drop(connection);
        let before = std::fs::read(&other).unwrap();
        let refused = Database::open(&other, &options).unwrap_err();
        assert!(matches!(refused, Error::OtherProgram { .. }), "{refused:?}");
        assert_eq!(std::fs::read(&other).unwrap(), before);
        std::fs::remove_file(&other).unwrap();
    }
    let own = folder.path().join("own.db");
    for _ in 0..2 {
        let database = Database::open(&own, &options).unwrap();
        database.migrate("test", SCHEMA).await.unwrap();
        database.close().await;
    }
    // What was made before there were marks is taken, and is marked then.
    let old = folder.path().join("old.db");
    let database = Database::open(&old, &Options::default()).unwrap();
    database.migrate("test", SCHEMA).await.unwrap();
    database.close().await;
    drop(Database::open(&old, &options).unwrap());
    let another = Options::default().with_application_id(ID + 1);
    let refused = Database::open(&old, &another).unwrap_err();
    assert!(matches!(refused, Error::OtherProgram { .. }), "{refused:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn regression_a_file_that_is_removed_replaced_or_truncated_takes_no_more_writes() {
    for harm in [
        "remove",
        "replace",
        "truncate",
        "remove log",
        "truncate log",
        // As if a commit was under way, which begins where the log ended.
        "truncate log and write on",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let database = open(&folder).await;
        // Some of it in the file, the rest in the log.
        insert(&database, 1).await.unwrap();
        other_process(&database)
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
            .unwrap();
        insert(&database, 2).await.unwrap();
        let file = database.path().to_owned();
        let log = folder.path().join("test.db-wal");
        let truncate = |path| {
            std::fs::OpenOptions::new()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(0)
        };
        match harm {
            "remove" => std::fs::remove_file(&file).unwrap(),
            "replace" => {
                std::fs::copy(&file, folder.path().join("copy.db")).unwrap();
                std::fs::rename(folder.path().join("copy.db"), &file).unwrap();
            }
            "truncate" => truncate(&file).unwrap(),
            "remove log" => std::fs::remove_file(&log).unwrap(),
            "truncate log" => truncate(&log).unwrap(),
            _ => {
                let length = std::fs::metadata(&log).unwrap().len();
                truncate(&log).unwrap();
                let log = std::fs::OpenOptions::new().write(true).open(&log).unwrap();
                log.set_len(length + 4096).unwrap();
            }
        }
        let refused = insert(&database, 3).await.expect_err(harm);
        assert!(
            matches!(refused, Error::FileChanged { .. }),
            "{harm}: {refused:?}"
        );
        assert!(refused.is_unavailable());
    }
}

/// A stop that moved the log into a file from elsewhere, or cut it off, would destroy what can still be saved.
#[cfg(unix)]
#[tokio::test]
async fn regression_a_stop_leaves_everything_as_it_is_after_the_file_was_changed() {
    for harm in ["remove", "replace", "truncate log"] {
        let folder = tempfile::tempdir().unwrap();
        let older = folder.path().join("older.db");
        let aside = folder.path().join("aside.db");
        let log = folder.path().join("test.db-wal");
        let database = open(&folder).await;
        insert(&database, 1).await.unwrap();
        let checkpoint = "PRAGMA wal_checkpoint(PASSIVE)";
        other_process(&database)
            .query_row(checkpoint, [], |_| Ok(()))
            .unwrap();
        let file = database.path().to_owned();
        std::fs::copy(&file, &older).unwrap();
        for n in 2..100 {
            insert(&database, n).await.unwrap();
        }
        match harm {
            "remove" => std::fs::rename(&file, &aside).unwrap(),
            "replace" => {
                std::fs::rename(&file, &aside).unwrap();
                std::fs::copy(&older, &file).unwrap();
            }
            _ => std::fs::File::create(&log).map(drop).unwrap(),
        }
        let before = std::fs::read(&log).unwrap();
        insert(&database, 100).await.expect_err(harm);
        database.close().await;
        assert_eq!(std::fs::read(&log).unwrap(), before, "{harm}");
        if aside.exists() {
            std::fs::rename(&aside, &file).unwrap();
        } else {
            assert_eq!(
                std::fs::read(&file).unwrap(),
                std::fs::read(&older).unwrap()
            );
        }
        let database = open(&folder).await;
        let kept = if harm == "truncate log" { 1 } else { 99 };
        assert_eq!(count(&database).await, kept, "{harm}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn regression_a_file_with_another_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    let other = folder.path().join("other.db");
    std::fs::hard_link(database.path(), &other).unwrap();
    let refused = Database::open(&other, &Options::default()).unwrap_err();
    assert!(matches!(refused, Error::HardLink { .. }), "{refused:?}");
    // The handle that has it open continues, and it can be opened again once it has one name.
    insert(&database, 1).await.unwrap();
    database.close().await;
    std::fs::remove_file(&other).unwrap();
    assert_eq!(count(&open(&folder).await).await, 1);
}

#[tokio::test]
async fn what_another_program_compacts_is_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)
        INSERT INTO item SELECT i FROM n";
    let run = |statement: &'static str| {
        database.write(move |tx| Ok::<_, Error>(tx.execute_batch(statement)?))
    };
    run(fill).await.unwrap();
    let other = other_process(&database);
    let compact = "PRAGMA wal_checkpoint(TRUNCATE); DELETE FROM item WHERE n > 10; VACUUM;
        PRAGMA wal_checkpoint(TRUNCATE)";
    run("DELETE FROM item WHERE n > 40000").await.unwrap();
    other.execute_batch(compact).unwrap();
    run("INSERT INTO item VALUES (100)").await.unwrap();
    assert_eq!(count(&database).await, 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_the_log_is_emptied_although_readers_overlap_without_end() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    database
        .write(|tx| Ok::<_, Error>(tx.execute_batch("CREATE TABLE bulk (data BLOB)")?))
        .await
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    // One reader begins before the other ends, so that SQLite's own checkpoint never resets the log.
    let readers: Vec<_> = (0..2)
        .map(|offset| {
            let (path, stop) = (database.path().to_owned(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let connection = rusqlite::Connection::open(path).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    connection
                        .execute_batch("BEGIN; SELECT count(*) FROM item")
                        .unwrap();
                    let until = Instant::now() + Duration::from_millis(20 + 5 * offset);
                    while Instant::now() < until {
                        std::thread::yield_now();
                    }
                    connection.execute_batch("COMMIT").unwrap();
                }
            })
        })
        .collect();
    let append = |tx: &rusqlite::Transaction<'_>| {
        tx.execute("INSERT INTO bulk VALUES (zeroblob(1048576))", [])?;
        tx.execute("DELETE FROM bulk", [])?;
        Ok::<_, Error>(())
    };
    let mut longest = 0;
    let emptied = async {
        loop {
            let bytes = database.log_bytes();
            if bytes < longest / 2 {
                break;
            }
            longest = longest.max(bytes);
            if longest <= 150 << 20 {
                database.write(append).await.unwrap();
            } else {
                // On a busy machine an attempt may fail; the next one is a write some seconds later.
                let write = |tx: &rusqlite::Transaction<'_>| {
                    tx.execute("DELETE FROM bulk", [])?;
                    Ok::<_, Error>(())
                };
                database.write(write).await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    let emptied = tokio::time::timeout(Duration::from_secs(60), emptied).await;
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
    emptied.expect("the log is emptied");
    assert!(longest > 100 << 20, "{longest} bytes");
}

/// The number of rows, which only grows.
const PROGRESS: &str = "SELECT count(*) FROM note";

async fn add_note(database: &Database) {
    let insert = |tx: &rusqlite::Transaction<'_>| -> Result<usize, Error> {
        Ok(tx.execute("INSERT INTO note VALUES ('x')", [])?)
    };
    database.write(insert).await.unwrap();
}

/// A file with notes, opened as a server opens it.
async fn open_notes(path: &std::path::Path) -> (Database, bool) {
    let options = Options::default().with_exclusive_lock();
    let database = Database::open(path, &options).unwrap();
    let tables = &["CREATE TABLE note (text TEXT NOT NULL) STRICT"];
    database.migrate("notes", tables).await.unwrap();
    let is_copy = database.is_copy(PROGRESS).await.unwrap();
    (database, is_copy)
}

/// Opens it, adds so many notes, and closes it. Returns whether it was a copy.
async fn add_notes(path: &std::path::Path, count: usize) -> bool {
    let (database, is_copy) = open_notes(path).await;
    database.keep_progress(PROGRESS).await.unwrap();
    for _ in 0..count {
        add_note(&database).await;
    }
    database.close().await;
    is_copy
}

#[tokio::test]
async fn a_copy_counts_as_one_until_its_progress_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let [path, copy, lock] =
        ["test.db", "copy.db", "test.db.lock"].map(|name| folder.path().join(name));
    assert!(!add_notes(&path, 1).await, "an empty file is new");
    std::fs::copy(&path, &copy).unwrap();
    // As it was, further, and after a rollback.
    assert!(!add_notes(&path, 1).await);
    let (database, is_copy) = open_notes(&path).await;
    assert!(!is_copy);
    database.keep_progress(PROGRESS).await.unwrap();
    let refused: Result<(), Error> = database
        .write(|tx| {
            tx.execute("INSERT INTO note VALUES ('y')", [])?;
            Err(Error::Closed)
        })
        .await;
    refused.unwrap_err();
    database.close().await;
    assert!(!add_notes(&path, 0).await);

    std::fs::copy(&copy, &path).unwrap();
    for _ in 0..2 {
        let (database, is_copy) = open_notes(&path).await;
        assert!(is_copy);
        database.close().await;
    }
    let (database, _) = open_notes(&path).await;
    database.keep_progress(PROGRESS).await.unwrap();
    assert!(!database.is_copy(PROGRESS).await.unwrap(), "it is done");
    database.close().await;
    assert!(!add_notes(&path, 0).await);

    // What is not known counts as one.
    for unknown in ["", "nonsense\n", "0000000000000000 9\n"] {
        std::fs::write(&lock, unknown).unwrap();
        assert!(add_notes(&path, 0).await, "{unknown}");
        assert!(!add_notes(&path, 0).await, "{unknown}");
    }
    let kept = std::fs::read(&lock).unwrap();
    std::fs::write(&lock, [&kept[..], b"and more\n"].concat()).unwrap();
    assert!(!add_notes(&path, 0).await, "the first line counts");
    std::fs::remove_file(&lock).unwrap();
    assert!(add_notes(&path, 0).await);
    // A file without a lock never does.
    let shared = Database::open(&path, &Options::default()).unwrap();
    shared.keep_progress(PROGRESS).await.unwrap();
    assert!(!shared.is_copy(PROGRESS).await.unwrap());
}

/// Where a number alone would not tell.
#[tokio::test]
async fn a_copy_that_is_further_than_the_file_before_it_counts_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let [path, monday, tuesday] =
        ["test.db", "monday.db", "tuesday.db"].map(|name| folder.path().join(name));
    add_notes(&path, 2).await;
    std::fs::copy(&path, &monday).unwrap();
    add_notes(&path, 2).await;
    std::fs::copy(&path, &tuesday).unwrap();
    add_notes(&path, 2).await;
    // The older copy was the wrong one.
    std::fs::copy(&monday, &path).unwrap();
    assert!(add_notes(&path, 1).await);
    std::fs::copy(&tuesday, &path).unwrap();
    assert!(add_notes(&path, 1).await);

    // A server has started on an empty file before the copy was brought.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    assert!(!add_notes(&path, 0).await);
    std::fs::copy(&tuesday, &path).unwrap();
    assert!(add_notes(&path, 0).await);
    assert!(!add_notes(&path, 0).await);
}

/// Such a commit may be gone after a loss of power, and then the file would be behind.
#[tokio::test]
async fn what_a_relaxed_write_adds_is_kept_with_the_next_full_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    let (database, _) = open_notes(&path).await;
    database.keep_progress(PROGRESS).await.unwrap();
    let kept = || {
        let lock = std::fs::read_to_string(folder.path().join("test.db.lock")).unwrap();
        lock.split_whitespace()
            .last()
            .unwrap()
            .parse::<u32>()
            .unwrap()
    };
    let insert = |tx: &rusqlite::Transaction<'_>| -> Result<usize, Error> {
        Ok(tx.execute("INSERT INTO note VALUES ('x')", [])?)
    };
    database.write_relaxed(insert).await.unwrap();
    assert_eq!(kept(), 0);
    add_note(&database).await;
    assert_eq!(kept(), 2);
}
