//! A claim whose consumer drops the future before it has the messages: no handler was given them, so that
//! they come again at once and their attempts do not count.

use std::sync::Arc;

use parking_lot::Mutex;
use tidings_sqlite::Database;
use tokio::runtime::Handle;

use super::settle;
use crate::Error;
use crate::engine::{GroupKey, Outcome, Receipt, Settlement, Wakes};

/// What a claim takes, until its consumer has it. Dropping it earlier hands it back.
pub(super) struct Undelivered {
    database: Database,
    wakes: Wakes,
    group: GroupKey,
    /// Where the writer notes what it has claimed.
    pub(super) taken: Arc<Mutex<Vec<Receipt>>>,
    is_delivered: bool,
}

impl Undelivered {
    pub(super) fn new(database: &Database, wakes: &Wakes, group: &GroupKey) -> Self {
        Self {
            database: database.clone(),
            wakes: wakes.clone(),
            group: group.clone(),
            taken: Arc::default(),
            is_delivered: false,
        }
    }

    /// Says that the consumer has it, or that nothing was taken.
    pub(super) fn delivered(mut self) {
        self.is_delivered = true;
    }
}

impl Drop for Undelivered {
    fn drop(&mut self) {
        if self.is_delivered {
            return;
        }
        // Without a runtime the claim runs out.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let (database, wakes) = (self.database.clone(), self.wakes.clone());
        let (group, taken) = (self.group.clone(), Arc::clone(&self.taken));
        runtime.spawn(async move {
            let stream = group.stream.clone();
            // The writer works in order: if the claim is in its queue, it has been made by then.
            let handed_back = database.write_relaxed(move |tx| {
                let receipts = std::mem::take(&mut *taken.lock());
                let released = |receipt| Settlement {
                    receipt,
                    outcome: Outcome::Released,
                };
                let settlements: Vec<_> = receipts.into_iter().map(released).collect();
                settle::settle(tx, &group, &settlements).map(drop)
            });
            match handed_back.await {
                Ok(()) => wakes.wake(&stream),
                Err(Error::Closed | Error::UnknownGroup) => {}
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "cannot give a claim back, it will expire");
                }
            }
        });
    }
}
