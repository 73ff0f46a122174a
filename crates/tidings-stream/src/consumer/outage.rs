//! One line in the log for an outage of the store, whichever part meets it, and one for its end.
//!
//! Claiming, recording, extending, polling, checking in and trimming all meet an outage, each consumer for
//! itself. They share what they know of it: the first failure is logged, and the end once all parts that
//! have failed work again.

use std::sync::Arc;

use parking_lot::Mutex;
use tidings_reconnect::Trouble;

use crate::Error;

/// The outages of one store. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outages {
    shared: Arc<Mutex<[Outage; 2]>>,
}

/// What is known of outages of one kind.
#[derive(Debug, Default)]
struct Outage {
    trouble: Trouble,
    /// How many parts have failed and not worked since.
    failing: usize,
}

/// A full store refuses some calls for as long as it is full, and must not hide that it cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Down = 0,
    Full = 1,
}

/// What calls the store again and again. Dropping it ends its part in an outage.
#[derive(Debug)]
pub(crate) struct Part {
    outages: Outages,
    what: &'static str,
    failing: Option<Kind>,
}

impl Outages {
    /// A part that works; `what` names it in the log.
    pub(crate) fn part(&self, what: &'static str) -> Part {
        Part {
            outages: self.clone(),
            what,
            failing: None,
        }
    }
}

impl Part {
    /// Records a success, and logs it if an outage ends by it.
    pub(crate) fn worked(&mut self) {
        if self.leave() {
            tracing::info!("the store of streams works again");
        }
    }

    /// Records a failure that is followed by another attempt, and logs it if an outage begins by it.
    pub(crate) fn failed(&mut self, error: &Error) {
        let kind = match error {
            Error::Full(_) => Kind::Full,
            _ => Kind::Down,
        };
        if self.failing != Some(kind) {
            self.leave();
            self.outages.shared.lock()[kind as usize].failing += 1;
            self.failing = Some(kind);
        }
        let has_begun = self.outages.shared.lock()[kind as usize].trouble.failed();
        let (what, error) = (self.what, error as &dyn std::error::Error);
        if has_begun {
            tracing::warn!(what, error, "the store of streams failed, trying again");
        } else {
            tracing::debug!(what, error, "the store of streams still fails");
        }
    }

    /// Returns whether an outage that was logged is over by it.
    fn leave(&mut self) -> bool {
        let Some(kind) = self.failing.take() else {
            return false;
        };
        let outage = &mut self.outages.shared.lock()[kind as usize];
        outage.failing -= 1;
        outage.failing == 0 && outage.trouble.worked()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tidings_test_support::Log;

    use super::*;

    fn down() -> Error {
        Error::backend(io::Error::other("away"))
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_one_line_whichever_part_meets_it_and_so_is_its_end() {
        let log = Log::default();
        let _listening = log.listen();
        let outages = Outages::default();
        let (mut claiming, mut recording) = (outages.part("claiming"), outages.part("recording"));
        for _ in 0..3 {
            claiming.failed(&down());
            recording.failed(&down());
        }
        assert_eq!(log.lines("WARN").len(), 1);
        assert!(log.lines("WARN")[0].contains("claiming"));
        claiming.worked();
        assert_eq!(log.lines("works again").len(), 0);
        recording.worked();
        claiming.worked();
        assert_eq!(log.lines("works again").len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_store_does_not_hide_that_it_is_down() {
        let log = Log::default();
        let _listening = log.listen();
        let outages = Outages::default();
        let (mut letters, mut claiming) = (outages.part("letters"), outages.part("claiming"));
        letters.failed(&Error::Full(io::Error::other("no room").into()));
        claiming.failed(&down());
        assert_eq!(log.lines("WARN").len(), 2);
        claiming.worked();
        assert_eq!(log.lines("works again").len(), 1);
        letters.worked();
        assert_eq!(log.lines("works again").len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_ends_does_not_keep_an_outage_open() {
        let log = Log::default();
        let _listening = log.listen();
        let outages = Outages::default();
        let (mut claiming, mut polling) = (outages.part("claiming"), outages.part("polling"));
        claiming.failed(&down());
        polling.failed(&down());
        drop(claiming);
        polling.worked();
        assert_eq!(log.lines("works again").len(), 1);
    }
}
