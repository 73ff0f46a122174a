use std::sync::{Arc, Weak};

use tokio::sync::OnceCell;

use super::Position;
use crate::{EventId, Page};

/// A page of the log that a stream wants from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) after: EventId,
    pub(crate) limit: usize,
    /// What is known when the store is asked: an older result could look like a log that was rewound.
    pub(crate) known: Position,
    /// How many changes of the read state the stream has been given: the events of an older result could
    /// lack their marks.
    pub(crate) reads_heard: u64,
}

/// The newest read of the store for a user's streams. Streams that want the same page share it: when the
/// ring does not have an event, all screens of a user want it at once.
#[derive(Debug, Default)]
pub(super) struct SharedReading(Option<(Wanted, Weak<OnceCell<Arc<Page>>>)>);

impl SharedReading {
    /// Where the page will be. The first who waits for it reads it.
    pub(super) fn of(&mut self, wanted: Wanted) -> Arc<OnceCell<Arc<Page>>> {
        let begun = self.0.as_ref().filter(|(begun, _)| *begun == wanted);
        if let Some(page) = begun.and_then(|(_, page)| page.upgrade()) {
            return page;
        }
        let page = Arc::default();
        self.0 = Some((wanted, Arc::downgrade(&page)));
        page
    }
}
