#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use jiff::Timestamp;
use slab::Slab;

use super::inbox::{Counts, Inbox};
use super::ring::Ring;
use crate::change::{Changed, InboxChange, InboxUpdate};
use crate::store::{Head, Page};
use crate::{Epoch, Event, EventId};

/// What the streams of one user on this instance share: how far the log is known to go, its newest
/// events, and the wake-up.
///
/// Streams are correct without it. The ring saves reads from the store, and the position saves asking
/// the store whether there is anything new.
#[derive(Debug)]
pub(crate) struct Channel(Mutex<State>);

#[derive(Debug)]
struct State {
    position: Position,
    /// The newest events without holes, ending at `position`; or empty.
    ring: Ring,
    inbox: Inbox,
    /// How often the inbox was forgotten.
    forgotten: u64,
    closing: bool,
    /// The streams, each in its place, and whom to wake of those that wait.
    readers: Slab<Option<Waker>>,
}

/// How far a log goes, as far as this instance knows: everything up to there is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: Epoch,
    pub(crate) top_seq: u64,
}

impl Position {
    /// Nothing is known yet.
    const UNKNOWN: Self = Self {
        epoch: Epoch::NONE,
        top_seq: 0,
    };
}

/// What is known of a log when the store is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) position: Position,
    /// The newest revision of the inbox.
    revision: u64,
    /// How often the inbox had been forgotten.
    forgotten: u64,
}

/// What a result of the store says about a log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    position: Position,
    counts: Counts,
}

/// What comes after a cursor.
#[derive(Debug)]
pub(crate) enum AfterCursor {
    /// This event.
    Event(Arc<Event>),
    /// Nothing: the cursor is at the top.
    Nothing,
    /// Not in memory: the store must be asked.
    AskStore,
}

impl Channel {
    pub(super) fn new(capacity: usize) -> Self {
        Self(Mutex::new(State {
            position: Position::UNKNOWN,
            ring: Ring::new(capacity),
            inbox: Inbox::new(capacity),
            forgotten: 0,
            closing: false,
            // Most users have one stream.
            readers: Slab::with_capacity(1),
        }))
    }

    /// A place for one more stream, to be [left](Self::leave) once.
    pub(crate) fn enter(&self) -> usize {
        self.state().readers.insert(None)
    }

    /// Frees the place of a stream.
    pub(crate) fn leave(&self, place: usize) {
        let waker = self.state().readers.try_remove(place);
        // Without the lock, as it is the caller's.
        drop(waker);
    }

    /// Has the stream in this place woken at the next change. A reader calls it before looking, and therefore misses
    /// no change.
    pub(crate) fn wake_later(&self, place: usize, waker: &Waker) {
        let mut waker = Some(waker.clone());
        if let Some(reader) = self.state().readers.get_mut(place) {
            std::mem::swap(reader, &mut waker);
        }
        // Without the lock, as it is the caller's.
        drop(waker);
    }

    /// What is known, to be passed on with what the store is asked for.
    pub(crate) fn asked(&self) -> Asked {
        self.state().asked()
    }

    /// How many changes of the inbox there have been.
    pub(crate) fn changes_end(&self) -> u64 {
        self.state().inbox.end()
    }

    /// Takes in events that are in the store, in any order, again or for the first time.
    pub(crate) fn offer(&self, events: &[Arc<Event>]) {
        self.update(|state| {
            let before = state.position;
            for event in events {
                state.offer(event);
            }
            state.position != before
        });
    }

    /// Takes in a result of the store, which was asked when so much was known.
    ///
    /// The store sees everything that was written before it is asked. So a result behind `asked`
    /// means that the log was rewound, and one behind what is known now only that the result is old.
    pub(crate) fn observe(&self, seen: Seen, asked: Asked) {
        self.update(|state| state.observe(seen, asked));
    }

    /// Takes in the events after the position of `asked`, and where the log stood with them.
    pub(crate) fn take_in(&self, page: Page, asked: Asked) {
        let seen = (&page.head).into();
        let events: Vec<_> = page.events.into_iter().map(Arc::new).collect();
        self.update(|state| {
            let before = state.position;
            for event in &events {
                state.offer(event);
            }
            state.observe(seen, asked) || state.position != before
        });
    }

    /// Whether a result that the store returned some time ago has nothing new. If it has, or if it
    /// contradicts what is known, then the store must be asked again: the result may be old, or the
    /// log may have been rewound.
    pub(crate) fn knows(&self, seen: Seen) -> bool {
        let state = self.state();
        state.position == seen.position && state.inbox.includes(seen.counts.revision)
    }

    /// Takes in a change of the inbox that was made through this instance at the time `at`.
    pub(crate) fn change(&self, update: &InboxUpdate, at: Timestamp) {
        self.update(|state| {
            state.change(update, at);
            true
        });
    }

    /// Forgets the inbox: the store was rewound, and may have given a revision that is known to another change. Only
    /// an append begins a new epoch, so the store must be asked next: the readers get what it returns.
    pub(super) fn forget_inbox(&self) {
        let mut state = self.state();
        state.inbox.restart();
        state.ring.clear();
        state.forgotten += 1;
    }

    /// Ends the streams, once each has delivered what is known.
    pub(super) fn close(&self) {
        self.update(|state| {
            state.closing = true;
            true
        });
    }

    /// Locks the channel for a reader to look at.
    pub(crate) fn view(&self) -> View<'_> {
        View(self.state())
    }

    /// Changes the state, and wakes the streams that wait if the change returns `true`.
    fn update(&self, change: impl FnOnce(&mut State) -> bool) {
        let mut state = self.state();
        if !change(&mut state) {
            return;
        }
        let readers = state.readers.iter_mut();
        let waiting: Vec<_> = readers.filter_map(|(_, waker)| waker.take()).collect();
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A channel at one instant.
pub(crate) struct View<'a>(MutexGuard<'a, State>);

impl View<'_> {
    /// What is known, to be passed on with what the store is asked for.
    pub(crate) fn asked(&self) -> Asked {
        self.0.asked()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.0.closing
    }

    /// What comes after a cursor.
    pub(crate) fn after(&self, cursor: EventId) -> AfterCursor {
        let Position { epoch, top_seq } = self.0.position;
        if !is_same_log(cursor, epoch) {
            return AfterCursor::AskStore;
        }
        if cursor.seq == top_seq {
            return AfterCursor::Nothing;
        }
        self.0
            .ring
            .after(cursor.seq)
            .map_or(AfterCursor::AskStore, |event| {
                AfterCursor::Event(event.clone())
            })
    }

    /// The next change of the inbox for a reader who was given `heard` of them and has the
    /// events up to `cursor`, together with how many the reader has been given then.
    ///
    /// A reader whose cursor is not in the present log is given its gap first.
    pub(crate) fn change_after(&self, heard: u64, cursor: EventId) -> Option<(InboxChange, u64)> {
        let Position { epoch, top_seq } = self.0.position;
        let is_in_log = is_same_log(cursor, epoch) && cursor.seq <= top_seq;
        is_in_log
            .then(|| self.0.inbox.after(heard, cursor))
            .flatten()
    }
}

impl State {
    fn asked(&self) -> Asked {
        Asked {
            position: self.position,
            revision: self.inbox.revision(),
            forgotten: self.forgotten,
        }
    }

    fn offer(&mut self, event: &Arc<Event>) {
        let EventId { epoch, seq } = event.id;
        if seq == 0 {
            // No event has this number.
            return;
        }
        if self.position.epoch == Epoch::NONE {
            self.position.epoch = epoch;
        }
        if epoch != self.position.epoch {
            // It may be older or newer than what is known. The sweep finds out which.
            return;
        }
        let top = self.position.top_seq;
        if seq > top {
            if seq - top > 1 {
                // The events between are in the store, but not here.
                self.ring.clear();
            }
            self.position.top_seq = seq;
            self.ring.push_newest(event.clone());
        } else {
            let joins = match self.ring.first_seq() {
                Some(first) => seq == first - 1,
                None => seq == top,
            };
            // A late copy does not have the state that was set since: the store serves that event.
            if joins && !self.inbox.may_have_changed(seq) {
                self.ring.push_oldest(event.clone());
            }
        }
    }

    /// Returns `true` if the position or the inbox changed.
    fn observe(&mut self, seen: Seen, asked: Asked) -> bool {
        let moved = self.observe_position(seen.position, asked.position);
        if asked.forgotten != self.forgotten {
            // These counts may be from before the store was rewound. It is asked again in any case.
            return moved;
        }
        let Position { epoch, top_seq } = seen.position;
        if asked.position.epoch == epoch && seen.counts.revision < asked.revision {
            // What was changed last is not so any more.
            self.inbox.restart();
            self.ring.clear();
        }
        let known = self.position.epoch;
        // A log is known by now, and there was none when the store was asked.
        let is_before_log = epoch == Epoch::NONE && known != Epoch::NONE;
        if is_before_log || (epoch == known && self.inbox.includes(seen.counts.revision)) {
            return self.inbox.observe_older(seen.counts.revision, known) || moved;
        }
        if epoch != known {
            return moved;
        }
        let keyed = self.keyed_up_to(top_seq);
        let top = EventId::new(epoch, top_seq);
        if self.inbox.observe(seen.counts, top, keyed) {
            // It is not known which events were changed, so the ring's copies may be wrong.
            self.ring.clear();
        }
        true
    }

    /// How many events with a key there are after the state of the inbox that is known, if they are
    /// all at hand.
    fn keyed_up_to(&self, top_seq: u64) -> Option<u64> {
        self.ring.keyed_between(self.inbox.known_top()?, top_seq)
    }

    fn observe_position(&mut self, seen: Position, asked: Position) -> bool {
        let known = self.position;
        let is_newer = if known.epoch == seen.epoch {
            seen.top_seq > known.top_seq
                || (asked.epoch == seen.epoch && seen.top_seq < asked.top_seq)
        } else {
            known.epoch == Epoch::NONE || known.epoch == asked.epoch
        };
        if is_newer {
            self.position = seen;
            self.ring.clear();
            let is_another_log = known.epoch != seen.epoch && known.epoch != Epoch::NONE;
            if is_another_log || known.top_seq > seen.top_seq {
                self.inbox.restart();
            }
        }
        is_newer
    }

    fn change(&mut self, update: &InboxUpdate, at: Timestamp) {
        if self.inbox.includes(update.revision) {
            return;
        }
        let EventId { epoch, seq } = update.change.cursor;
        // The change counts events that may have been stored elsewhere: readers must get them first.
        let top = Position {
            epoch,
            top_seq: seq,
        };
        self.observe_position(top, Position::UNKNOWN);
        let keyed = self.keyed_up_to(seq);
        let what = self.inbox.apply(update, keyed);
        self.change_ring(&what, at);
    }

    fn change_ring(&mut self, what: &Changed, at: Timestamp) {
        match what {
            Changed::Read(ids) => self.edit_ring(ids, |event| {
                event.read_at = event.read_at.or(Some(at));
            }),
            Changed::Unread(ids) => self.edit_ring(ids, |event| event.read_at = None),
            Changed::Archived(ids) => self.edit_ring(ids, |event| {
                event.archived_at = event.archived_at.or(Some(at));
            }),
            Changed::Unarchived(ids) => self.edit_ring(ids, |event| event.archived_at = None),
            Changed::ReadUpTo(last) => {
                let is_marked = |event: &Event| {
                    event.id.epoch == last.epoch
                        && event.id.seq <= last.seq
                        && event.read_at.is_none()
                };
                for event in self.ring.iter_mut().filter(|event| is_marked(event)) {
                    if event.archived_at.is_none() {
                        Arc::make_mut(event).read_at = Some(at);
                    }
                }
            }
            Changed::SeenUpTo(_) | Changed::Replaced => {}
            Changed::Unknown => self.ring.clear(),
        }
    }

    fn edit_ring(&mut self, ids: &[EventId], edit: impl Fn(&mut Event)) {
        for event in self.ring.iter_mut() {
            if ids.contains(&event.id) {
                edit(Arc::make_mut(event));
            }
        }
    }
}

/// Whether the cursor is of the log of `epoch`, or was taken before any log existed.
pub(super) fn is_same_log(cursor: EventId, epoch: Epoch) -> bool {
    cursor.epoch == epoch || cursor == EventId::ORIGIN
}

impl From<&Head> for Seen {
    fn from(head: &Head) -> Self {
        Self {
            position: Position {
                epoch: head.epoch,
                top_seq: head.top_seq,
            },
            counts: Counts {
                revision: head.revision,
                unread: head.unread,
                unseen: head.unseen,
            },
        }
    }
}
