use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::{Message, NotifyError, telemetry};

/// The places of a lane's queue, and those of all lanes together.
#[derive(Debug)]
pub(crate) struct Places {
    /// One permit for each free place.
    own: Semaphore,
    all: Option<Arc<Semaphore>>,
}

/// One place, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Room(Arc<Places>);

impl Places {
    pub(crate) fn new(own: usize, all: Option<Arc<Semaphore>>) -> Arc<Self> {
        Arc::new(Self {
            own: Semaphore::new(own),
            all,
        })
    }

    pub(crate) fn try_take(self: &Arc<Self>) -> Option<Room> {
        let own = self.own.try_acquire().ok()?;
        if let Some(all) = &self.all {
            all.try_acquire().ok()?.forget();
        }
        own.forget();
        Some(Room(Arc::clone(self)))
    }

    /// Waits for a place, in turn; `None` once the places are closed.
    pub(crate) async fn take(self: &Arc<Self>) -> Option<Room> {
        let own = self.own.acquire().await.ok()?;
        if let Some(all) = &self.all {
            all.acquire().await.ok()?.forget();
        }
        own.forget();
        Some(Room(Arc::clone(self)))
    }

    /// Sends away everybody who waits for a place of this queue.
    pub(crate) fn close(&self) {
        self.own.close();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.own.add_permits(1);
        if let Some(all) = &self.0.all {
            all.add_permits(1);
        }
    }
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    NotStarted,
    Stopped,
    Full,
    UnknownEndpoint,
    Gone,
}

impl Refused {
    /// Hands a message back that was not taken, and counts it.
    pub(crate) fn hand_back(self, message: Message) -> NotifyError {
        telemetry::dropped(self.as_str());
        match self {
            Self::NotStarted => NotifyError::NotStarted(message),
            Self::Stopped => NotifyError::Stopped(message),
            Self::Full => NotifyError::QueueFull(message),
            Self::UnknownEndpoint => NotifyError::UnknownEndpoint(message),
            Self::Gone => NotifyError::Gone(message),
        }
    }
    /// One word for metrics.
    fn as_str(self) -> &'static str {
        match self {
            Self::NotStarted => "not_started",
            Self::Stopped => "stopped",
            Self::Full => "queue_full",
            Self::UnknownEndpoint => "unknown_endpoint",
            Self::Gone => "gone",
        }
    }
}
