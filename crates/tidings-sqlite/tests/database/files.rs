//! What can be a database, and what becomes of one that other programs touch.

use tidings_sqlite::{Database, Error, Fault, Options, rusqlite};

use crate::{SCHEMA, count, insert, open, other_process};

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
    // A file that was made anew from a dump has no mark. It is taken, and is marked then.
    let anew = folder.path().join("anew.db");
    let database = Database::open(&anew, &Options::default()).unwrap();
    database.migrate("test", SCHEMA).await.unwrap();
    database.close().await;
    drop(Database::open(&anew, &options).unwrap());
    let another = Options::default().with_application_id(ID + 1);
    let refused = Database::open(&anew, &another).unwrap_err();
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
