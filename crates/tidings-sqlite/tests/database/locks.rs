//! One opener at a time, and other processes that have a lock for a while.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidings_sqlite::{Database, Error, Options, rusqlite};
use tokio::time::Instant;

use crate::{SCHEMA, count, insert, is_duplicate, open, other_process};

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
        .args([
            "--exact",
            "locks::the_lock_ends_with_the_process_that_holds_it",
        ])
        .env(CHILD, &path)
        .output()
        .unwrap()
        .status;
    assert!(!status.success());
    Database::open(&path, &Options::default().with_exclusive_lock()).unwrap();
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
