//! Knowing whether another engine is alive on the same file, and bringing back the claims of earlier
//! runs if there is none.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::Transaction;

use super::clock;
use super::lease::{LEASE_COLUMNS, Lease};
use crate::Error;

/// A lock on a file beside the database that all living engines share. The operating system frees
/// it with the process. Two engines of one process hold it independently, since each opens the file
/// for itself.
#[derive(Debug)]
pub(super) struct Liveness {
    file: Option<File>,
}

impl Liveness {
    /// Registers an engine, and runs `if_alone` when no other is alive.
    ///
    /// An engine that is alone can have the lock exclusively. It has it for a moment, and only inside
    /// a writing transaction: SQLite lets one of those run at a time, in all processes, so no engine
    /// waits for the lock, and two that start together do not both find themselves alone.
    ///
    /// Where the file system has no locks, an engine takes itself to be in company: that only makes
    /// the claims of an earlier run wait until they expire.
    pub(super) fn register(
        transaction: &Transaction<'_>,
        database: &Path,
        if_alone: impl FnOnce(&Transaction<'_>) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let mut path = database.as_os_str().to_owned();
        path.push(".streams.lock");
        let path = PathBuf::from(path);
        let (file, alone) = match lock(&path) {
            Ok((file, alone)) => (Some(file), alone),
            Err(error) => {
                tracing::warn!(
                    path = %path.display(), error = &error as &dyn std::error::Error,
                    "the lock cannot be used; claims of an earlier run come again as they expire"
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
    /// Closing the file would not do: a child that this process is just starting has a copy of it
    /// until its own program begins, and would keep the lock.
    fn drop(&mut self) {
        if let Some(Err(error)) = self.file.as_ref().map(File::unlock) {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the lock is left to the operating system"
            );
        }
    }
}

/// Takes the lock together with the other engines, and returns whether there are none.
fn lock(path: &Path) -> Result<(File, bool), std::io::Error> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    let alone = file.try_lock().is_ok();
    // From alone to shared, or from nothing to shared.
    file.lock_shared()?;
    Ok((file, alone))
}

/// Ends every claim, because no consumer is left to settle it, and lets no message wait longer than its
/// delay, whatever the clock says now.
pub(super) fn bring_back_claims(transaction: &Transaction<'_>) -> Result<(), Error> {
    let now = clock::now();
    let leases: Vec<Lease> = transaction
        .prepare(&format!("SELECT {LEASE_COLUMNS} FROM stream_lease"))?
        .query_map([], Lease::read)?
        .collect::<Result<_, _>>()?;
    for lease in leases {
        lease.explode(transaction, now)?;
    }
    let recovered = transaction.execute(
        "UPDATE stream_retry SET claim = NULL, consumer = NULL, since = ?1, due = ?1, delay = 0
         WHERE claim IS NOT NULL",
        [now],
    )?;
    transaction.execute(
        "UPDATE stream_retry SET due = ?1 + delay WHERE due > ?1 + delay",
        [now],
    )?;
    if recovered > 0 {
        tracing::info!(
            messages = recovered,
            "messages that an earlier run had claimed come again"
        );
    }
    Ok(())
}
