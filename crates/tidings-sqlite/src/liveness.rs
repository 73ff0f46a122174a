//! Knowing whether another store of the same kind is open on the same file.

use std::io;
use std::path::Path;

use rusqlite::Transaction;

use crate::file::{self, LockFile};
use crate::{Database, Error};

/// A lock on a file beside the database that all open stores of one kind share. The operating system
/// frees it with the process. Two stores of one process hold it independently, since each opens the
/// file for itself.
///
/// A store keeps it for as long as it has claims, so that the next one knows whether their holder is
/// still alive. It is given back once everything that was queued before it was dropped is written.
#[derive(Debug)]
pub struct Liveness {
    database: Database,
    lock: Option<LockFile>,
}

impl Liveness {
    /// Registers a store, and runs `if_alone` when no other store of its kind is open. `kind` is part of
    /// the name of the lock file.
    ///
    /// A store that is alone can have the lock exclusively. It has it for a moment, and only inside a
    /// writing transaction: SQLite lets one of those run at a time, in all processes, so no store waits
    /// for the lock, and two that are opened together do not both find themselves alone.
    ///
    /// Where the file system has no locks, a store takes itself not to be alone: then what an earlier
    /// run had claimed waits until the claims expire.
    ///
    /// # Errors
    ///
    /// Those of `if_alone`, and those of [`Database::write_relaxed`].
    pub async fn register<E, F>(database: &Database, kind: &str, if_alone: F) -> Result<Self, E>
    where
        E: From<Error> + Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<(), E> + Send + 'static,
    {
        let path = file::beside(database.path(), &format!(".{kind}.lock"));
        let register = move |transaction: &Transaction<'_>| {
            let (lock, alone) = match take(&path) {
                Ok((lock, alone)) => (Some(lock), alone),
                Err(error) => {
                    tracing::warn!(
                        path = %path.display(), error = &error as &dyn std::error::Error,
                        "cannot use the lock file, claims of an earlier run wait until they expire"
                    );
                    (None, false)
                }
            };
            if alone {
                if_alone(transaction)?;
            }
            Ok::<_, E>(lock)
        };
        Ok(Self {
            lock: database.write_relaxed(register).await?,
            database: database.clone(),
        })
    }
}

impl Drop for Liveness {
    fn drop(&mut self) {
        if let Some(lock) = self.lock.take() {
            self.database.drop_after_writes(lock);
        }
    }
}

/// Takes the lock together with the other stores, and returns whether there are none.
fn take(path: &Path) -> io::Result<(LockFile, bool)> {
    let file = LockFile::open(path)?;
    let is_alone = file.try_lock().is_ok();
    // From exclusive to shared, or from nothing to shared.
    file.lock_shared()?;
    Ok((file, is_alone))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::poll;

    use super::*;
    use crate::Options;

    fn open(folder: &tempfile::TempDir) -> Database {
        Database::open(folder.path().join("test.db"), &Options::default()).unwrap()
    }

    /// Registers a store, and returns whether it found itself alone.
    async fn register(database: &Database, kind: &str) -> (Liveness, bool) {
        let is_alone = Arc::new(AtomicBool::new(false));
        let found = Arc::clone(&is_alone);
        let registering = Liveness::register(database, kind, move |_| {
            found.store(true, Ordering::Relaxed);
            Ok::<_, Error>(())
        });
        (registering.await.unwrap(), is_alone.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_store_is_alone_when_no_other_of_its_kind_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (open(&folder), open(&folder));
        let (first, is_alone) = register(&one, "left").await;
        assert!(is_alone);
        let (_of_other_kind, is_alone) = register(&one, "right").await;
        assert!(is_alone);
        // Beside it, in the same process or on a connection of its own.
        let (second, is_alone) = register(&one, "left").await;
        assert!(!is_alone);
        let (third, is_alone) = register(&other, "left").await;
        assert!(!is_alone);
        drop((first, second, third));
        one.close().await;
        other.close().await;
        let (_again, is_alone) = register(&open(&folder), "left").await;
        assert!(is_alone);
    }

    #[tokio::test]
    async fn without_a_lock_file_a_store_takes_itself_not_to_be_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("test.db.left.lock")).unwrap();
        let (_registered, is_alone) = register(&open(&folder), "left").await;
        assert!(!is_alone);
    }

    /// A store that is dropped may have left claims to be written.
    #[tokio::test]
    async fn regression_a_store_is_alive_until_what_it_has_queued_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let database = open(&folder);
        let (registered, _) = register(&database, "left").await;
        let lock = File::open(folder.path().join("test.db.left.lock")).unwrap();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let mut holding = Box::pin(database.write(move |_| {
            held.recv().unwrap();
            Ok::<_, Error>(())
        }));
        assert!(poll!(&mut holding).is_pending());
        drop(registered);
        assert!(lock.try_lock().is_err());
        release.send(()).unwrap();
        holding.await.unwrap();
        database.close().await;
        lock.try_lock().unwrap();
    }
}
