//! What the log says of requests that are refused because the database does not work: one line when that
//! begins and one when it ends, whatever their number.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidings_reconnect::Trouble;

use crate::telemetry;

/// What requests have learned of the database.
#[derive(Debug, Default)]
pub(crate) struct Outage(Mutex<Trouble>);

/// Why the database could not do what a request needed. An extension of its response.
#[derive(Debug, Clone)]
pub(crate) struct Cause(Arc<str>);

impl Cause {
    pub(crate) fn new(error: &(dyn std::error::Error + 'static)) -> Self {
        Self(tidings_storage::explain::explain(error).into())
    }
}

impl Outage {
    pub(crate) fn failed(&self, Cause(cause): &Cause) {
        telemetry::database_failed();
        if self.lock().failed() {
            tracing::warn!(%cause, "the database does not work, requests get 503 until it does");
        } else {
            tracing::debug!(%cause, "refused a request, the database does not work");
        }
    }

    pub(crate) fn worked(&self) {
        if self.lock().worked() {
            tracing::info!("the database works again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Trouble> {
        // The value is whole after every statement, so a poisoned lock is still right.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
