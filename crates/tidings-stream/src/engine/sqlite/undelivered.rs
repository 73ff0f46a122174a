//! A claim whose consumer drops the future before it has the messages: no handler was given them, so that
//! they come again at once and their attempts do not count.

use std::sync::Arc;

use parking_lot::Mutex;
use tidings_sqlite::Database;
use tokio::runtime::Handle;

use super::settle;
use crate::Error;
use crate::engine::{Claimed, GroupKey, Outcome, Receipt, Settlement, Wakes};

/// What a claim takes, until its consumer has it. Dropping it earlier hands it back.
pub(super) struct Undelivered {
    database: Database,
    wakes: Wakes,
    group: GroupKey,
    taken: Taken,
    is_delivered: bool,
}

/// Where the writer notes what it has claimed.
#[derive(Clone, Default)]
pub(super) struct Taken(Arc<Mutex<Vec<Receipt>>>);

impl Taken {
    pub(super) fn note(&self, claimed: &Claimed) {
        let receipts = claimed.messages.iter().map(|it| it.receipt);
        *self.0.lock() = receipts.collect();
    }

    fn released(&self) -> Vec<Settlement> {
        let receipts = std::mem::take(&mut *self.0.lock());
        let released = |receipt| Settlement {
            receipt,
            outcome: Outcome::Released,
        };
        receipts.into_iter().map(released).collect()
    }
}

impl Undelivered {
    pub(super) fn new(database: &Database, wakes: &Wakes, group: &GroupKey) -> Self {
        Self {
            database: database.clone(),
            wakes: wakes.clone(),
            group: group.clone(),
            taken: Taken::default(),
            is_delivered: false,
        }
    }

    pub(super) fn taken(&self) -> Taken {
        self.taken.clone()
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
        let (group, taken) = (self.group.clone(), self.taken.clone());
        runtime.spawn(async move {
            let stream = group.stream.clone();
            // The writer works in order: if the claim is in its queue, it has been made by then.
            let handed_back = database.write_relaxed(move |tx| {
                settle::settle(tx, &group, &taken.released())?;
                Ok::<(), Error>(())
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
