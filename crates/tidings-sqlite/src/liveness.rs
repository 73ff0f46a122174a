//! Knowing whether another store of the same kind is open on the same file.

use std::fs::File;
use std::path::Path;

use rusqlite::Transaction;

use crate::file;

/// A lock on a file beside the database that all open stores of one kind share. The operating system
/// frees it with the process. Two stores of one process hold it independently, since each opens the
/// file for itself.
///
/// A store keeps it for as long as it has claims, so that the next one knows whether their holder is
/// still alive.
#[derive(Debug)]
pub struct Liveness {
    file: Option<File>,
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
    /// Those of `if_alone`.
    pub fn register<E>(
        transaction: &Transaction<'_>,
        database: &Path,
        kind: &str,
        if_alone: impl FnOnce(&Transaction<'_>) -> Result<(), E>,
    ) -> Result<Self, E> {
        let path = file::beside(database, &format!(".{kind}.lock"));
        let (file, alone) = match lock(&path) {
            Ok((file, alone)) => (Some(file), alone),
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
        Ok(Self { file })
    }
}

impl Drop for Liveness {
    /// Closing the file is not enough: a child that this process is just starting has a copy of it
    /// until its own program begins, and would keep the lock.
    fn drop(&mut self) {
        if let Some(Err(error)) = self.file.as_ref().map(File::unlock) {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "cannot unlock the lock file, it stays locked until the process ends"
            );
        }
    }
}

/// Takes the lock together with the other stores, and returns whether there are none.
fn lock(path: &Path) -> Result<(File, bool), std::io::Error> {
    let file = file::owner_only().create(true).truncate(false).open(path)?;
    let is_alone = file.try_lock().is_ok();
    // From exclusive to shared, or from nothing to shared.
    file.lock_shared()?;
    Ok((file, is_alone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Database, Error, Options};

    /// Registers a store, and returns whether it found itself alone.
    async fn register(database: &Database, kind: &'static str) -> (Liveness, bool) {
        let path = database.path().to_owned();
        let register = move |transaction: &Transaction<'_>| {
            let mut is_alone = false;
            let registered = Liveness::register(transaction, &path, kind, |_| {
                is_alone = true;
                Ok::<_, Error>(())
            });
            Ok::<_, Error>((registered?, is_alone))
        };
        database.write_relaxed(register).await.unwrap()
    }

    #[tokio::test]
    async fn a_store_is_alone_when_no_other_of_its_kind_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Database::open(folder.path().join("test.db"), &Options::default()).unwrap();
        let (one, other) = (open(), open());
        let (first, is_alone) = register(&one, "left").await;
        assert!(is_alone);
        let (_of_other_kind, is_alone) = register(&one, "right").await;
        assert!(is_alone);
        // Beside it, in the same process or on a connection of its own.
        for database in [&one, &other] {
            let (_second, is_alone) = register(database, "left").await;
            assert!(!is_alone);
        }
        drop(first);
        let (_again, is_alone) = register(&other, "left").await;
        assert!(is_alone);
    }

    #[tokio::test]
    async fn without_a_lock_file_a_store_takes_itself_not_to_be_alone() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(folder.path().join("test.db"), &Options::default()).unwrap();
        std::fs::create_dir(folder.path().join("test.db.left.lock")).unwrap();
        let (_registered, is_alone) = register(&database, "left").await;
        assert!(!is_alone);
    }
}
