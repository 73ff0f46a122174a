//! What this instance knows of a user's read state.

use std::collections::VecDeque;

use super::channel::is_same_log;
use crate::EventId;
use crate::read::{Marked, ReadChange, ReadUpdate};

/// What is unread as of a revision, and the newest changes for readers to be given.
#[derive(Debug)]
pub(super) struct Reads {
    /// Most changes in `recent`.
    capacity: usize,
    /// The state after the newest change that is known, once any is.
    known: Option<ReadState>,
    recent: VecDeque<ReadChange>,
    /// How many changes there have been in all, including those that `recent` no longer has.
    end: u64,
    /// The number up to which events may have been marked since they were appended.
    marked_through: u64,
    /// The log was rewound and readers have not been told what is unread since.
    is_stale: bool,
}

/// What is unread, as of a revision.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadState {
    pub(super) revision: u64,
    pub(super) unread: u64,
}

impl Reads {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            known: None,
            recent: VecDeque::new(),
            end: 0,
            marked_through: 0,
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
    pub(super) fn after(&self, heard: u64, cursor: EventId) -> Option<(ReadChange, u64)> {
        let kept_from = self.end - self.recent.len() as u64;
        let (change, heard) = if heard < kept_from {
            let newest = self.recent.back()?;
            let change = ReadChange {
                marked: Marked::Unknown,
                ..newest.clone()
            };
            (change, self.end)
        } else {
            let index = usize::try_from(heard - kept_from).ok()?;
            (self.recent.get(index)?.clone(), heard + 1)
        };
        // A reader of another log never gets there, and may be given it at once.
        let is_due = !is_same_log(cursor, change.as_of.epoch) || change.as_of.seq <= cursor.seq;
        is_due.then_some((change, heard))
    }

    /// Whether an event of this number, as it was appended, may lack a mark that it has in the store.
    pub(super) fn may_have_marked(&self, seq: u64) -> bool {
        seq <= self.marked_through
    }

    /// Takes in a state that the store returned when its log ended at `top`. Returns `true` if
    /// events were marked that this instance does not know of.
    pub(super) fn observe(&mut self, seen: ReadState, top: EventId) -> bool {
        if self.includes(seen.revision) {
            return false;
        }
        if seen.revision > 0 {
            self.marked_through = top.seq;
        }
        let is_first = self.known.replace(seen).is_none();
        if is_first && !self.is_stale {
            return false;
        }
        self.is_stale = false;
        self.push(ReadChange {
            marked: Marked::Unknown,
            unread: seen.unread,
            as_of: top,
        });
        true
    }

    /// Whether the change of this revision, or a later one that stands for it, is known.
    pub(super) fn includes(&self, revision: u64) -> bool {
        self.known.is_some_and(|known| revision <= known.revision)
    }

    /// Takes in a new change that was made through this instance, and returns which events were
    /// marked.
    pub(super) fn apply(&mut self, update: &ReadUpdate) -> Marked {
        let mut change = update.change.clone();
        let follows = |known: ReadState| update.revision == known.revision + 1;
        if !self.known.is_none_or(follows) {
            // The changes between were made elsewhere.
            change.marked = Marked::Unknown;
        }
        self.known = Some(ReadState {
            revision: update.revision,
            unread: change.unread,
        });
        self.marked_through = change.as_of.seq;
        let marked = change.marked.clone();
        self.push(change);
        marked
    }

    /// The log was made anew or rewound. Its revisions begin elsewhere, and changes that count events
    /// which no longer exist would never become due. The next state that is observed stands for all.
    pub(super) fn restart(&mut self) {
        self.known = None;
        self.recent.clear();
        self.marked_through = 0;
        self.is_stale = true;
    }

    fn push(&mut self, change: ReadChange) {
        self.recent.push_back(change);
        self.end += 1;
        if self.recent.len() > self.capacity {
            self.recent.pop_front();
        }
    }
}
