//! Copies of an earlier state that are put back.

use tidings_sqlite::{Database, Error, Options, rusqlite};

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
