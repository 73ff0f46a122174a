use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::reads::{ReadState, Reads};
use super::ring::Ring;
use crate::read::{Marked, ReadChange, ReadUpdate};
use crate::store::{Head, LogChange, Page};
use crate::{Epoch, Event, EventId};

/// What the streams of one user on this instance share: how far the log is known to go, its newest
/// events, and the wake-up.
///
/// Streams are correct without it. The ring saves reads from the store, and the position saves asking
/// the store whether there is anything new.
#[derive(Debug)]
pub(crate) struct Channel {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug)]
struct State {
    position: Position,
    /// The newest events without holes, ending at `position`; or empty.
    ring: Ring,
    reads: Reads,
    closing: bool,
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

/// What a result of the store says about a log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    position: Position,
    read_state: Option<ReadState>,
}

/// What comes after a cursor.
#[derive(Debug)]
pub(crate) enum Next {
    /// This event.
    Event(Arc<Event>),
    /// Nothing: the cursor is at the top.
    Nothing,
    /// Not in memory: the store must be asked.
    AskStore,
}

impl Channel {
    pub(super) fn new(capacity: usize) -> Self {
        let state = State {
            position: Position::UNKNOWN,
            ring: Ring::new(capacity),
            reads: Reads::new(capacity),
            closing: false,
        };
        Self {
            state: Mutex::new(state),
            wake: Notify::new(),
        }
    }

    /// Completes at the next change after it was enabled. A reader enables it before looking, and
    /// therefore misses no change.
    pub(crate) fn woken(&self) -> Notified<'_> {
        self.wake.notified()
    }

    pub(crate) fn position(&self) -> Position {
        self.state().position
    }

    /// How many changes of the read state there have been.
    pub(crate) fn reads_end(&self) -> u64 {
        self.state().reads.end()
    }

    /// Takes in events that are in the store, in any order, again or for the first time.
    pub(crate) fn offer(&self, events: &[Arc<Event>]) {
        let mut state = self.state();
        let before = state.position;
        for event in events {
            state.offer(event);
        }
        let moved = state.position != before;
        drop(state);
        if moved {
            self.wake.notify_waiters();
        }
    }

    /// Takes in a result of the store, which was asked when the position was `asked`.
    ///
    /// The store sees everything that was written before it is asked. So a result behind `asked`
    /// means that the log was rewound, and one behind the present position only that the result is
    /// old.
    pub(crate) fn observe(&self, seen: Seen, asked: Position) {
        let mut state = self.state();
        let changed = state.observe(seen, asked);
        drop(state);
        if changed {
            self.wake.notify_waiters();
        }
    }

    /// Takes in a result that the store returned some time ago. Returns `false` if it contradicts
    /// what is known now: then it is old, or the log was rewound or made anew. The caller must ask
    /// the store again and pass the result to [`observe`](Self::observe).
    pub(crate) fn observe_past(&self, seen: Seen) -> bool {
        let mut state = self.state();
        let known = state.position;
        if known.epoch != Epoch::NONE
            && (known.epoch != seen.position.epoch || known.top_seq > seen.position.top_seq)
        {
            return false;
        }
        let changed = state.observe(seen, Position::UNKNOWN);
        drop(state);
        if changed {
            self.wake.notify_waiters();
        }
        true
    }

    /// Takes in a change of the read state that was made through this instance at the time `at`.
    pub(crate) fn read(&self, update: &ReadUpdate, at: Timestamp) {
        let mut state = self.state();
        state.read(update, at);
        drop(state);
        self.wake.notify_waiters();
    }

    /// Ends the streams, once each has delivered what is known.
    pub(super) fn close(&self) {
        self.state().closing = true;
        self.wake.notify_waiters();
    }

    /// Locks the channel for a reader to look at.
    pub(crate) fn view(&self) -> View<'_> {
        View(self.state())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A channel at one instant.
pub(crate) struct View<'a>(MutexGuard<'a, State>);

impl View<'_> {
    pub(crate) fn position(&self) -> Position {
        self.0.position
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.0.closing
    }

    /// What comes after a cursor.
    pub(crate) fn after(&self, cursor: EventId) -> Next {
        let Position { epoch, top_seq } = self.0.position;
        if !is_same_log(cursor, epoch) {
            return Next::AskStore;
        }
        if cursor.seq == top_seq {
            return Next::Nothing;
        }
        self.0
            .ring
            .after(cursor.seq)
            .map_or(Next::AskStore, |event| Next::Event(event.clone()))
    }

    /// The next change of the read state for a reader who was given `heard` of them and has the
    /// events up to `cursor`, together with how many the reader has been given then.
    pub(crate) fn read_after(&self, heard: u64, cursor: EventId) -> Option<(ReadChange, u64)> {
        self.0.reads.after(heard, cursor)
    }
}

impl State {
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
            if joins {
                self.ring.push_oldest(event.clone());
            }
        }
    }

    /// Returns `true` if the position or the read state changed.
    fn observe(&mut self, seen: Seen, asked: Position) -> bool {
        let moved = self.observe_position(seen.position, asked);
        let Position { epoch, top_seq } = seen.position;
        let marked_elsewhere = epoch == self.position.epoch
            && seen.read_state.is_some_and(|read_state| {
                self.reads.observe(read_state, EventId::new(epoch, top_seq))
            });
        if marked_elsewhere {
            // It is not known which events were read, so the ring's copies may be wrong.
            self.ring.clear();
        }
        moved || marked_elsewhere
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
            if known.epoch != seen.epoch || known.top_seq > seen.top_seq {
                self.reads.restart();
            }
        }
        is_newer
    }

    fn read(&mut self, update: &ReadUpdate, at: Timestamp) {
        if self.reads.includes(update.revision) {
            return;
        }
        let EventId { epoch, seq } = update.change.as_of;
        // The change counts events that may have been stored elsewhere: readers must get them first.
        let top = Position {
            epoch,
            top_seq: seq,
        };
        self.observe_position(top, Position::UNKNOWN);
        let marked = self.reads.apply(update);
        self.mark_ring(&marked, at);
    }

    fn mark_ring(&mut self, marked: &Marked, at: Timestamp) {
        let epoch = self.position.epoch;
        let is_marked = |id: EventId| match marked {
            Marked::Ids(ids) => ids.contains(&id),
            Marked::UpTo(last) => last.epoch == epoch && id.seq <= last.seq,
            Marked::Unknown => false,
        };
        if *marked == Marked::Unknown {
            self.ring.clear();
        }
        for event in self.ring.iter_mut() {
            if event.read_at.is_none() && is_marked(event.id) {
                Arc::make_mut(event).read_at = Some(at);
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
            read_state: Some(ReadState {
                revision: head.read_revision,
                unread: head.unread,
            }),
        }
    }
}

impl From<&LogChange> for Seen {
    fn from(change: &LogChange) -> Self {
        Self {
            position: Position {
                epoch: change.epoch,
                top_seq: change.top_seq,
            },
            read_state: Some(ReadState {
                revision: change.read_revision,
                unread: change.unread,
            }),
        }
    }
}

impl From<&Page> for Seen {
    fn from(page: &Page) -> Self {
        Self {
            position: Position {
                epoch: page.epoch,
                top_seq: page.top_seq,
            },
            read_state: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::MAX_BYTES;
    use super::*;
    use crate::{Draft, EventType, Payload, UserId};

    const EPOCH: u64 = 7;

    fn event(epoch: u64, seq: u64) -> Arc<Event> {
        event_of_size(epoch, seq, 1)
    }

    fn event_of_size(epoch: u64, seq: u64, bytes: usize) -> Arc<Event> {
        let draft = Draft::new(
            UserId::new("ann").unwrap(),
            EventType::new("test").unwrap(),
            Payload::parse(&"1".repeat(bytes)).unwrap(),
        );
        Arc::new(Event::from_draft(draft, id(epoch, seq)))
    }

    fn id(epoch: u64, seq: u64) -> EventId {
        EventId::new(Epoch::from_u64(epoch), seq)
    }

    fn head(epoch: u64, top_seq: u64, read_revision: u64) -> Seen {
        let head = Head {
            epoch: Epoch::from_u64(epoch),
            top_seq,
            read_revision,
            ..Head::EMPTY
        };
        (&head).into()
    }

    fn update(revision: u64, ids: &[EventId], as_of: EventId) -> ReadUpdate {
        ReadUpdate {
            changed: 1,
            revision,
            change: ReadChange {
                marked: Marked::Ids(ids.into()),
                unread: 0,
                as_of,
            },
        }
    }

    fn next(channel: &Channel, cursor: EventId) -> Option<u64> {
        match channel.view().after(cursor) {
            Next::Event(event) => Some(event.id.seq),
            _ => None,
        }
    }

    #[test]
    fn an_old_answer_takes_nothing_back() {
        let channel = Channel::new(8);
        channel.observe(head(EPOCH, 5, 0), channel.position());
        let asked = channel.position();
        channel.offer(&[event(EPOCH, 6), event(EPOCH, 7)]);
        channel.observe(head(EPOCH, 6, 0), asked);
        assert_eq!(channel.position().top_seq, 7);
        assert!(!channel.observe_past(head(EPOCH, 6, 0)));
        assert_eq!(channel.position().top_seq, 7);
        assert_eq!(next(&channel, id(EPOCH, 6)), Some(7));
    }

    #[test]
    fn an_answer_behind_what_was_known_when_asked_is_a_rewind() {
        let channel = Channel::new(8);
        channel.offer(&[event(EPOCH, 1), event(EPOCH, 2)]);
        channel.observe(head(EPOCH, 1, 0), channel.position());
        assert_eq!(channel.position().top_seq, 1);
        assert!(matches!(channel.view().after(id(EPOCH, 2)), Next::AskStore));
    }

    #[test]
    fn a_new_epoch_is_believed_from_the_store_and_from_nobody_else() {
        let channel = Channel::new(8);
        channel.offer(&[event(EPOCH, 1)]);
        channel.offer(&[event(EPOCH + 1, 2)]);
        assert!(!channel.observe_past(head(EPOCH + 1, 2, 0)));
        assert_eq!(channel.position().epoch.as_u64(), EPOCH);
        channel.observe(head(EPOCH + 1, 2, 0), channel.position());
        assert_eq!(channel.position().epoch.as_u64(), EPOCH + 1);
        assert!(matches!(channel.view().after(id(EPOCH, 1)), Next::AskStore));
    }

    #[test]
    fn numbers_at_the_edges_do_no_harm() {
        let channel = Channel::new(2);
        for seq in [0, u64::MAX, u64::MAX, u64::MAX - 1, 0, 1] {
            channel.offer(&[event(EPOCH, seq)]);
        }
        assert_eq!(next(&channel, id(EPOCH, u64::MAX - 1)), Some(u64::MAX));
        assert!(matches!(
            channel.view().after(id(EPOCH, u64::MAX)),
            Next::Nothing
        ));
        assert!(matches!(channel.view().after(id(EPOCH, 0)), Next::AskStore));
    }

    #[test]
    fn the_ring_is_bounded_in_bytes() {
        let channel = Channel::new(1000);
        let share = MAX_BYTES / 4;
        for seq in 1..=10 {
            channel.offer(&[event_of_size(EPOCH, seq, share)]);
        }
        assert!(matches!(channel.view().after(id(EPOCH, 5)), Next::AskStore));
        assert_eq!(next(&channel, id(EPOCH, 6)), Some(7));
        // An older one that joins does not fit any more.
        channel.offer(&[event_of_size(EPOCH, 6, share)]);
        assert!(matches!(channel.view().after(id(EPOCH, 5)), Next::AskStore));
        // What has gone makes room.
        channel.offer(&[event_of_size(EPOCH, 11, 2 * share)]);
        assert_eq!(next(&channel, id(EPOCH, 8)), Some(9));
        assert!(matches!(channel.view().after(id(EPOCH, 7)), Next::AskStore));
        // One that is too large alone is left to the store, and the next begins anew.
        channel.offer(&[event_of_size(EPOCH, 12, MAX_BYTES + 1)]);
        channel.offer(&[event_of_size(EPOCH, 12, MAX_BYTES + 1)]);
        assert!(matches!(
            channel.view().after(id(EPOCH, 11)),
            Next::AskStore
        ));
        channel.offer(&[event_of_size(EPOCH, 13, MAX_BYTES)]);
        assert!(matches!(
            channel.view().after(id(EPOCH, 11)),
            Next::AskStore
        ));
        assert_eq!(next(&channel, id(EPOCH, 12)), Some(13));
    }

    #[test]
    fn changes_overtaken_by_a_later_one_are_covered_by_it() {
        let channel = Channel::new(8);
        channel.observe(head(EPOCH, 2, 0), channel.position());
        let at = Timestamp::UNIX_EPOCH;
        let top = id(EPOCH, 2);
        channel.read(&update(2, &[top], top), at);
        channel.read(&update(1, &[id(EPOCH, 1)], top), at);
        let (change, heard) = channel.view().read_after(0, top).unwrap();
        assert_eq!((change.marked, heard), (Marked::Unknown, 1));
        assert_eq!(channel.view().read_after(heard, top), None);
    }

    #[test]
    fn a_change_that_counts_events_from_elsewhere_sends_readers_to_the_store() {
        let channel = Channel::new(8);
        channel.observe(head(EPOCH, 2, 0), channel.position());
        let as_of = id(EPOCH, 4);
        channel.read(&update(1, &[as_of], as_of), Timestamp::UNIX_EPOCH);
        assert!(matches!(channel.view().after(id(EPOCH, 2)), Next::AskStore));
        assert_eq!(channel.view().read_after(0, id(EPOCH, 2)), None);
        assert!(channel.view().read_after(0, as_of).is_some());
    }
}
