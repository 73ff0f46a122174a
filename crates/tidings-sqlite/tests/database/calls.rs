//! What reads and writes do.

use std::time::Duration;

use rusqlite::{Connection, StatementStatus};
use tidings_sqlite::{Database, Error, Handle, Options, rusqlite};

use crate::{SCHEMA, count, insert, is_duplicate, open};

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
async fn a_list_may_be_given_all_the_time_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::default().with_list_timeout(Duration::MAX);
    let database = Database::open(folder.path().join("test.db"), &options).unwrap();
    let listed = database.list::<_, Error, _>(|connection| {
        Ok(connection.query_row("SELECT 1", [], |row| row.get::<_, i64>(0))?)
    });
    assert_eq!(listed.await.unwrap(), 1);
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
async fn a_handle_that_is_closed_refuses_every_call_and_leaves_the_others_alone() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder).await;
    let (closed, other) = (Handle::new(database.clone()), Handle::new(database));
    let clone = closed.clone();
    closed.close();
    let refused = [
        clone.read(|_| Ok(())).await,
        clone.list(|_| Ok(())).await,
        clone.write(|_| Ok(())).await,
        clone.write_relaxed(|_| Ok(())).await,
    ];
    assert!(
        refused
            .iter()
            .all(|refused| matches!(refused, Err(Error::Closed)))
    );
    other.write(|_| Ok::<_, Error>(())).await.unwrap();
}
