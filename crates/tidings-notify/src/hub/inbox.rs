//! What this instance knows of a user's inbox.

use std::collections::VecDeque;

use super::channel::is_same_log;
use crate::change::{Changed, InboxChange, InboxUpdate};
use crate::{Epoch, EventId};

/// The counts as of a revision, and the newest changes for readers to be given.
#[derive(Debug)]
pub(super) struct Inbox {
    /// Most changes in `recent`.
    capacity: usize,
    /// The state after the newest change that is known, once any is.
    known: Option<Known>,
    recent: VecDeque<InboxChange>,
    /// How many changes there have been in all, including those that `recent` no longer has.
    end: u64,
    /// The number up to which events may have changed since they were appended.
    changed_through: u64,
    /// The first revision that was known: changes up to it are not in `recent`. A reader who began with
    /// an older one has missed them.
    unreported: u64,
    /// The log was rewound and readers have not got the counts since.
    is_stale: bool,
}

/// The counts of an inbox, as of a revision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    pub(super) revision: u64,
    pub(super) unread: u64,
    pub(super) unseen: u64,
}

/// The newest counts that are known, and where the log ended then.
#[derive(Debug, Clone, Copy)]
struct Known {
    counts: Counts,
    top_seq: u64,
}

impl Inbox {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            known: None,
            recent: VecDeque::new(),
            end: 0,
            changed_through: 0,
            unreported: 0,
            is_stale: false,
        }
    }

    /// How many changes there have been in all.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The next change for a reader who was given `heard` of them and has the events up to `cursor`,
    /// together with how many the reader has been given then.
    ///
    /// A change waits for the events that its count includes. A reader who lags behind the changes
    /// that are kept gets one that stands for all of them.
    pub(super) fn after(&self, heard: u64, cursor: EventId) -> Option<(InboxChange, u64)> {
        let kept_from = self.end - self.recent.len() as u64;
        let (change, heard) = if heard < kept_from {
            let newest = self.recent.back()?;
            let change = InboxChange {
                what: Changed::Unknown,
                ..newest.clone()
            };
            (change, self.end)
        } else {
            let index = usize::try_from(heard - kept_from).ok()?;
            (self.recent.get(index)?.clone(), heard + 1)
        };
        // A reader of another log never gets there, and may be given it at once.
        let is_due = !is_same_log(cursor, change.cursor.epoch) || change.cursor.seq <= cursor.seq;
        is_due.then_some((change, heard))
    }

    /// Whether an event of this number, as it was appended, may have another state in the store.
    pub(super) fn may_have_changed(&self, seq: u64) -> bool {
        seq <= self.changed_through
    }

    /// Takes in a state that the store returned when its log ended at `top`. Returns `true` if there
    /// were changes that this instance does not know of: copies of events may be wrong.
    ///
    /// `keyed` is as for [`apply`](Self::apply).
    pub(super) fn observe(&mut self, seen: Counts, top: EventId, keyed: Option<u64>) -> bool {
        if self.includes(seen.revision) {
            return false;
        }
        let known = self.known.replace(Known {
            counts: seen,
            top_seq: top.seq,
        });
        let explained =
            known.is_some_and(|known| keyed == Some(seen.revision - known.counts.revision));
        if seen.revision > 0 && !explained {
            self.changed_through = top.seq;
        }
        if known.is_none() && !self.is_stale {
            // Readers begin with these counts, but events that came before may have been changed since.
            self.unreported = seen.revision;
            return seen.revision > 0;
        }
        self.push(InboxChange {
            what: if explained {
                Changed::Replaced
            } else {
                Changed::Unknown
            },
            unread: seen.unread,
            unseen: seen.unseen,
            cursor: top,
        });
        !explained
    }

    /// Takes in a revision that is known already, of the log `epoch`. A reader may begin with it. If so, and
    /// if it is older than the first that was known, the reader gets one change that stands for those
    /// in between. Returns `true` if there is such a change.
    pub(super) fn observe_older(&mut self, revision: u64, epoch: Epoch) -> bool {
        let Some(Known { counts, top_seq }) =
            self.known.filter(|_known| revision < self.unreported)
        else {
            return false;
        };
        self.unreported = 0;
        self.push(InboxChange {
            what: Changed::Unknown,
            unread: counts.unread,
            unseen: counts.unseen,
            cursor: EventId::new(epoch, top_seq),
        });
        true
    }

    /// The newest revision that is known.
    pub(super) fn revision(&self) -> u64 {
        self.known.map_or(0, |known| known.counts.revision)
    }

    /// Whether the change of this revision, or a later one that stands for it, is known.
    pub(super) fn includes(&self, revision: u64) -> bool {
        self.known
            .is_some_and(|known| revision <= known.counts.revision)
    }

    /// The number of the log's top when the newest known state was current.
    pub(super) fn known_top(&self) -> Option<u64> {
        Some(self.known?.top_seq)
    }

    /// Takes in a new change that was made through this instance, and returns what changed.
    ///
    /// Each event with a key is a change of its own: `keyed` is how many there were since the state
    /// that is known, if it can be computed.
    pub(super) fn apply(&mut self, update: &InboxUpdate, keyed: Option<u64>) -> Changed {
        let mut change = update.change.clone();
        let follows = |known: Known| {
            keyed.is_some_and(|keyed| update.revision == known.counts.revision + keyed + 1)
        };
        if !self.known.is_some_and(follows) {
            // There were changes in between that were made elsewhere; or it is not known whether there were.
            change.what = Changed::Unknown;
        }
        self.known = Some(Known {
            counts: Counts {
                revision: update.revision,
                unread: change.unread,
                unseen: change.unseen,
            },
            top_seq: change.cursor.seq,
        });
        self.changed_through = change.cursor.seq;
        let what = change.what.clone();
        self.push(change);
        what
    }

    /// The log was made anew or rewound. Its revisions begin elsewhere, and changes that count events
    /// which no longer exist would never become due. The next state that is observed stands for all.
    pub(super) fn restart(&mut self) {
        self.known = None;
        self.recent.clear();
        self.changed_through = 0;
        self.unreported = 0;
        self.is_stale = true;
    }

    fn push(&mut self, change: InboxChange) {
        self.is_stale = false;
        self.recent.push_back(change);
        self.end += 1;
        if self.recent.len() > self.capacity {
            self.recent.pop_front();
        }
    }
}
