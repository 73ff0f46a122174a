use std::process::Command;

use tidings_sqlite::{Database, Error, Options};
use tidings_test_support::{DiskTrace, SmallDisk};

const SCHEMA: &[&str] = &["CREATE TABLE item (n INTEGER PRIMARY KEY, data BLOB) STRICT"];

/// The variable that says to a child, which is this test binary again, where its database is.
const CHILD: &str = "TIDINGS_SQLITE_TEST_CHILD";

async fn open(path: &str) -> Database {
    let options = Options::default().with_exclusive_lock();
    let database = Database::open(path, &options).unwrap();
    database.migrate("test", SCHEMA).await.unwrap();
    database
}

async fn run(database: &Database, statement: &'static str) -> Result<(), Error> {
    let ran = database.write(move |tx| tx.execute(statement, []).map_err(Error::from));
    ran.await.map(drop)
}

async fn insert(database: &Database) -> Result<(), Error> {
    run(database, "INSERT INTO item (data) VALUES (zeroblob(10000))").await
}

async fn count(database: &Database) -> i64 {
    database
        .read::<_, Error, _>(|connection| {
            Ok(connection.query_row("SELECT count(*) FROM item", [], |row| row.get(0))?)
        })
        .await
        .unwrap()
}

/// Runs one test of this binary again, as a child.
fn child(command: &mut Command, test: &str, path: &str) -> String {
    let output = command
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, path)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn a_write_that_has_returned_is_synced_and_a_relaxed_one_may_not_be() {
    if let Ok(path) = std::env::var(CHILD) {
        let database = open(&path).await;
        for _ in 0..3 {
            insert(&database).await.unwrap();
            println!("stored");
        }
        let relaxed = "INSERT INTO item (data) VALUES (zeroblob(10000))";
        let relaxed =
            database.write_relaxed(move |tx| tx.execute(relaxed, []).map_err(Error::from));
        relaxed.await.unwrap();
        println!("unsynced");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let trace = DiskTrace::new(&folder.path().join("trace"));
    let path = folder.path().join("test.db").display().to_string();
    let mut command = trace.command(std::env::current_exe().unwrap());
    let test = "disk::a_write_that_has_returned_is_synced_and_a_relaxed_one_may_not_be";
    let said = child(&mut command, test, &path);
    let stored = trace.replies("stored", &["-wal", ".db"]).unwrap();
    assert_eq!(stored.len(), 3, "{said}");
    for reply in &stored {
        assert!(
            reply.written > 10_000 && reply.unsynced.is_empty(),
            "{reply:?}"
        );
    }
    // That the trace shows the difference.
    let relaxed = trace.replies("unsynced", &["-wal", ".db"]).unwrap();
    assert_eq!(relaxed.len(), 1, "{said}");
    assert!(!relaxed[0].unsynced.is_empty(), "{relaxed:?}");
}

/// In a server, nearly every commit has writes of both kinds.
#[tokio::test]
async fn a_write_that_shares_its_commit_with_relaxed_ones_is_synced() {
    if let Ok(path) = std::env::var(CHILD) {
        let database = open(&path).await;
        let relaxed = || {
            database.write_relaxed(|tx| {
                let insert = "INSERT INTO item (data) VALUES (zeroblob(10000))";
                tx.execute(insert, []).map_err(Error::from)
            })
        };
        // Holding the writer makes the jobs that follow share one commit.
        let (release, held) = std::sync::mpsc::channel::<()>();
        let holder = database.write_relaxed(move |_| {
            held.recv().unwrap();
            Ok::<_, Error>(())
        });
        let stored = async {
            insert(&database).await.unwrap();
            println!("stored");
        };
        let unblock = async { release.send(()).unwrap() };
        let (holder, first, (), last, ()) =
            tokio::join!(holder, relaxed(), stored, relaxed(), unblock);
        holder.unwrap();
        first.unwrap();
        last.unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let trace = DiskTrace::new(&folder.path().join("trace"));
    let path = folder.path().join("test.db").display().to_string();
    let mut command = trace.command(std::env::current_exe().unwrap());
    let test = "disk::a_write_that_shares_its_commit_with_relaxed_ones_is_synced";
    let said = child(&mut command, test, &path);
    let stored = trace.replies("stored", &["-wal", ".db"]).unwrap();
    let [reply] = &*stored else { panic!("{said}") };
    assert!(
        reply.written > 30_000 && reply.unsynced.is_empty(),
        "{reply:?}"
    );
}

#[tokio::test]
async fn after_a_kill_on_a_full_disk_it_opens_reads_and_writes_again_once_there_is_room() {
    if let Ok(path) = std::env::var(CHILD) {
        let database = open(&path).await;
        loop {
            match insert(&database).await {
                Ok(()) => println!("stored"),
                Err(error) if error.is_full() => std::process::abort(),
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    let disk = SmallDisk::mount(6 << 20).unwrap();
    // What the checkpoint will need, which copies the log into the file.
    let reserve = disk.path().join("reserve");
    std::fs::write(&reserve, vec![0; 4 << 20]).unwrap();
    let path = disk.path().join("test.db").display().to_string();
    let mut command = Command::new(std::env::current_exe().unwrap());
    let test =
        "disk::after_a_kill_on_a_full_disk_it_opens_reads_and_writes_again_once_there_is_room";
    let said = child(&mut command, test, &path);
    let stored = i64::try_from(said.matches("stored").count()).unwrap();
    assert!(stored > 10, "{said}");
    disk.fill().unwrap();

    let database = open(&path).await;
    assert_eq!(count(&database).await, stored);
    let refused = insert(&database).await.unwrap_err();
    assert!(refused.is_full() && refused.is_unavailable(), "{refused:?}");
    assert_eq!(count(&database).await, stored);
    disk.make_room().unwrap();
    std::fs::remove_file(reserve).unwrap();
    insert(&database).await.unwrap();
    assert_eq!(count(&database).await, stored + 1);
}

/// Before the log is long enough for SQLite to move it, for instance because another program has taken the room.
#[tokio::test]
async fn regression_a_full_disk_takes_what_fits_into_the_pages_of_the_file() {
    let disk = SmallDisk::mount(8 << 20).unwrap();
    let path = disk.path().join("test.db").display().to_string();
    let database = open(&path).await;
    for _ in 0..20 {
        insert(&database).await.unwrap();
    }
    // Its end makes them pages of the file.
    database.close().await;
    let database = open(&path).await;
    let run = async |statement| run(&database, statement).await;
    let update = "UPDATE item SET data = randomblob(10000)";
    for _ in 0..5 {
        run(update).await.unwrap();
    }
    disk.fill().unwrap();
    let mut refusals = 0;
    for _ in 0..30 {
        if let Err(refused) = run(update).await {
            assert!(refused.is_full(), "{refused:?}");
            refusals += 1;
            // The next one has room.
            run(update).await.unwrap();
        }
    }
    assert!((1..=15).contains(&refusals), "{refusals}");
    for left in (0..20).rev() {
        let delete = "DELETE FROM item WHERE n = (SELECT max(n) FROM item)";
        if run(delete).await.is_err() {
            run(delete).await.unwrap();
        }
        assert_eq!(count(&database).await, left);
    }
    // What was deleted has made room.
    insert(&database).await.unwrap();
}

/// What the log has and the file has no room for would keep the log from ever being written over.
#[tokio::test]
async fn regression_a_disk_that_the_database_has_filled_takes_what_fits_into_the_pages_of_the_file()
{
    let disk = SmallDisk::mount(8 << 20).unwrap();
    let path = disk.path().join("test.db").display().to_string();
    let database = open(&path).await;
    // Once more if the log has no room; then it is written over.
    let run = async |statement| match run(&database, statement).await {
        Err(error) if error.is_full() => run(&database, statement).await,
        ran => ran,
    };
    let insert = "INSERT INTO item (data) VALUES (zeroblob(10000))";
    let refused = loop {
        database.check_room().unwrap();
        if let Err(refused) = run(insert).await {
            break refused;
        }
    };
    assert!(refused.is_full(), "{refused:?}");
    let stored = count(&database).await;
    assert!(stored > 100, "{stored}");
    assert!(database.check_room().unwrap_err().is_full());
    let pages: i64 = database
        .read::<_, Error, _>(|connection| {
            Ok(connection.query_row("PRAGMA page_count", [], |row| row.get(0))?)
        })
        .await
        .unwrap();
    let length = std::fs::metadata(&path).unwrap().len();
    assert!(length >= 4096 * pages.cast_unsigned(), "{length}, {pages}");

    for _ in 0..500 {
        run("UPDATE item SET data = randomblob(10000) WHERE n % 10 = 0")
            .await
            .unwrap();
    }
    assert!(database.check_room().unwrap_err().is_full());
    run("DELETE FROM item WHERE n % 2 = 0").await.unwrap();
    let left = count(&database).await;
    for _ in 0..stored / 4 {
        run(insert).await.unwrap();
    }
    // The room that was not needed in the end is no loss of the file.
    database.close().await;
    let database = open(&path).await;
    assert_eq!(count(&database).await, left + stored / 4);
    database.close().await;
}

/// Its statements write to the log, before the commit.
#[tokio::test]
async fn regression_a_full_disk_takes_changes_that_are_larger_than_the_cache_too() {
    let disk = SmallDisk::mount(128 << 20).unwrap();
    let path = disk.path().join("test.db").display().to_string();
    let database = open(&path).await;
    // Each row has a page.
    let insert = "
        WITH RECURSIVE row (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM row WHERE n < 6000)
        INSERT INTO item (data) SELECT randomblob(3000) FROM row";
    run(&database, insert).await.unwrap();
    let update = "UPDATE item SET data = randomblob(3000)";
    // While it is read, no change begins at the start of the log.
    let (began, reading) = tokio::sync::oneshot::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let reader = database.read::<i64, Error, _>(move |connection| {
        let count = connection.query_row("SELECT count(*) FROM item", [], |row| row.get(0));
        began.send(()).unwrap();
        ended.recv().unwrap();
        Ok(count?)
    });
    let changes = async {
        reading.await.unwrap();
        for _ in 0..2 {
            run(&database, update).await.unwrap();
        }
        end.send(()).unwrap();
    };
    let (count, ()) = tokio::join!(reader, changes);
    assert_eq!(count.unwrap(), 6000);
    disk.fill().unwrap();
    let refused = run(&database, update).await.unwrap_err();
    assert!(refused.is_full(), "{refused:?}");
    run(&database, update).await.unwrap();
}

/// What could not be committed is done by the next call: else the file would count as a copy at each opening.
#[tokio::test]
async fn keeping_the_progress_that_found_no_room_is_done_by_the_next_call() {
    const PROGRESS: &str = "SELECT count(*) FROM item";
    let disk = SmallDisk::mount(4 << 20).unwrap();
    let [path, copy] = ["test.db", "copy.db"].map(|name| disk.path().join(name));
    let path = path.display().to_string();
    for number in 0..2 {
        let database = open(&path).await;
        database.keep_progress(PROGRESS).await.unwrap();
        insert(&database).await.unwrap();
        database.close().await;
        if number == 0 {
            std::fs::copy(&path, &copy).unwrap();
        }
    }
    // One that is behind what was kept.
    std::fs::copy(&copy, &path).unwrap();
    let database = open(&path).await;
    assert!(database.is_copy(PROGRESS).await.unwrap());
    disk.fill().unwrap();
    let refused = database.keep_progress(PROGRESS).await.unwrap_err();
    assert!(refused.is_full(), "{refused:?}");
    disk.make_room().unwrap();
    database.keep_progress(PROGRESS).await.unwrap();
    database.close().await;
    let database = open(&path).await;
    assert!(!database.is_copy(PROGRESS).await.unwrap());
    database.close().await;
}
