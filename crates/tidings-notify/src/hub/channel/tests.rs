use std::task::Wake;

use super::super::ring::MAX_BYTES;
use super::*;
use crate::{Draft, EventKey, EventType, Payload, UserId};

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

fn keyed(seq: u64) -> Arc<Event> {
    let mut event = Arc::unwrap_or_clone(event(EPOCH, seq));
    event.key = Some(EventKey::new("progress").unwrap());
    Arc::new(event)
}

fn id(epoch: u64, seq: u64) -> EventId {
    EventId::new(Epoch::from_u64(epoch), seq)
}

fn head(epoch: u64, top_seq: u64, revision: u64) -> Seen {
    let head = Head {
        epoch: Epoch::from_u64(epoch),
        top_seq,
        revision,
        ..Head::EMPTY
    };
    (&head).into()
}

fn page(top_seq: u64, revision: u64, seqs: &[u64]) -> Page {
    let head = Head {
        epoch: Epoch::from_u64(EPOCH),
        top_seq,
        revision,
        ..Head::EMPTY
    };
    let events = seqs.iter().map(|seq| (*event(EPOCH, *seq)).clone());
    Page {
        head,
        events: events.collect(),
    }
}

fn update(revision: u64, ids: &[EventId], cursor: EventId) -> InboxUpdate {
    InboxUpdate {
        changed: 1,
        revision,
        change: InboxChange {
            what: Changed::Read(ids.into()),
            unread: 0,
            unseen: 0,
            cursor,
        },
    }
}

fn next(channel: &Channel, cursor: EventId) -> Option<u64> {
    match channel.view().after(cursor) {
        AfterCursor::Event(event) => Some(event.id.seq),
        _ => None,
    }
}

#[test]
fn an_old_reply_takes_nothing_back() {
    let channel = Channel::new(8);
    channel.observe(head(EPOCH, 5, 0), channel.asked());
    let asked = channel.asked();
    channel.offer(&[event(EPOCH, 6), event(EPOCH, 7)]);
    channel.observe(head(EPOCH, 6, 0), asked);
    assert_eq!(channel.asked().position.top_seq, 7);
    assert!(!channel.knows(head(EPOCH, 6, 0)));
    assert!(channel.knows(head(EPOCH, 7, 0)));
    assert_eq!(next(&channel, id(EPOCH, 6)), Some(7));
}

#[test]
fn a_reply_behind_what_was_known_when_asked_is_a_rewind() {
    let channel = Channel::new(8);
    channel.offer(&[event(EPOCH, 1), event(EPOCH, 2)]);
    channel.observe(head(EPOCH, 1, 0), channel.asked());
    assert_eq!(channel.asked().position.top_seq, 1);
    assert!(matches!(
        channel.view().after(id(EPOCH, 2)),
        AfterCursor::AskStore
    ));
}

#[test]
fn a_new_epoch_is_believed_from_the_store_alone() {
    let channel = Channel::new(8);
    channel.offer(&[event(EPOCH, 1)]);
    channel.offer(&[event(EPOCH + 1, 2)]);
    assert!(!channel.knows(head(EPOCH + 1, 2, 0)));
    assert_eq!(channel.asked().position.epoch.as_u64(), EPOCH);
    channel.observe(head(EPOCH + 1, 2, 0), channel.asked());
    assert_eq!(channel.asked().position.epoch.as_u64(), EPOCH + 1);
    assert!(matches!(
        channel.view().after(id(EPOCH, 1)),
        AfterCursor::AskStore
    ));
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
        AfterCursor::Nothing
    ));
    assert!(matches!(
        channel.view().after(id(EPOCH, 0)),
        AfterCursor::AskStore
    ));
}

#[test]
fn the_ring_is_bounded_in_bytes() {
    let channel = Channel::new(1000);
    let share = MAX_BYTES / 4;
    for seq in 1..=10 {
        channel.offer(&[event_of_size(EPOCH, seq, share)]);
    }
    assert!(matches!(
        channel.view().after(id(EPOCH, 5)),
        AfterCursor::AskStore
    ));
    assert_eq!(next(&channel, id(EPOCH, 6)), Some(7));
    // An older one that joins does not fit any more.
    channel.offer(&[event_of_size(EPOCH, 6, share)]);
    assert!(matches!(
        channel.view().after(id(EPOCH, 5)),
        AfterCursor::AskStore
    ));
    // What has gone makes room.
    channel.offer(&[event_of_size(EPOCH, 11, 2 * share)]);
    assert_eq!(next(&channel, id(EPOCH, 8)), Some(9));
    assert!(matches!(
        channel.view().after(id(EPOCH, 7)),
        AfterCursor::AskStore
    ));
    // One that is too large alone is left to the store, and the next begins anew.
    channel.offer(&[event_of_size(EPOCH, 12, MAX_BYTES + 1)]);
    channel.offer(&[event_of_size(EPOCH, 12, MAX_BYTES + 1)]);
    assert!(matches!(
        channel.view().after(id(EPOCH, 11)),
        AfterCursor::AskStore
    ));
    channel.offer(&[event_of_size(EPOCH, 13, MAX_BYTES)]);
    assert!(matches!(
        channel.view().after(id(EPOCH, 11)),
        AfterCursor::AskStore
    ));
    assert_eq!(next(&channel, id(EPOCH, 12)), Some(13));
}

#[test]
fn changes_overtaken_by_a_later_one_are_covered_by_it() {
    let channel = Channel::new(8);
    channel.observe(head(EPOCH, 2, 0), channel.asked());
    let at = Timestamp::UNIX_EPOCH;
    let top = id(EPOCH, 2);
    channel.change(&update(2, &[top], top), at);
    channel.change(&update(1, &[id(EPOCH, 1)], top), at);
    let (change, heard) = channel.view().change_after(0, top).unwrap();
    assert_eq!((change.what, heard), (Changed::Unknown, 1));
    assert_eq!(channel.view().change_after(heard, top), None);
}

#[test]
fn a_change_that_counts_events_from_elsewhere_sends_readers_to_the_store() {
    let channel = Channel::new(8);
    channel.observe(head(EPOCH, 2, 0), channel.asked());
    let cursor = id(EPOCH, 4);
    channel.change(&update(1, &[cursor], cursor), Timestamp::UNIX_EPOCH);
    assert!(matches!(
        channel.view().after(id(EPOCH, 2)),
        AfterCursor::AskStore
    ));
    assert_eq!(channel.view().change_after(0, id(EPOCH, 2)), None);
    assert!(channel.view().change_after(0, cursor).is_some());
}

#[test]
fn regression_an_event_that_comes_after_its_read_mark_is_left_to_the_store() {
    let channel = Channel::new(8);
    channel.observe(head(EPOCH, 1, 0), channel.asked());
    let (first, second) = (id(EPOCH, 1), id(EPOCH, 2));
    channel.change(&update(1, &[second], second), Timestamp::UNIX_EPOCH);
    channel.offer(&[event(EPOCH, 2)]);
    assert!(matches!(channel.view().after(first), AfterCursor::AskStore));
    // Later events are not what, and stay.
    channel.offer(&[event(EPOCH, 3)]);
    assert_eq!(next(&channel, second), Some(3));
    channel.offer(&[event(EPOCH, 2)]);
    assert!(matches!(channel.view().after(first), AfterCursor::AskStore));
}

#[test]
fn regression_an_event_older_than_what_the_store_said_is_read_is_left_to_the_store() {
    let channel = Channel::new(8);
    channel.observe(head(EPOCH, 2, 1), channel.asked());
    channel.offer(&[event(EPOCH, 2)]);
    assert!(matches!(
        channel.view().after(id(EPOCH, 1)),
        AfterCursor::AskStore
    ));
    // Without any change of the read state it joins.
    let channel = Channel::new(8);
    channel.observe(head(EPOCH, 2, 0), channel.asked());
    channel.offer(&[event(EPOCH, 2)]);
    assert_eq!(next(&channel, id(EPOCH, 1)), Some(2));
}

#[test]
fn regression_read_changes_go_on_after_a_rewind_in_the_same_epoch() {
    let channel = Channel::new(8);
    channel.observe(head(EPOCH, 9, 0), channel.asked());
    let top = id(EPOCH, 9);
    channel.change(&update(1, &[top], top), Timestamp::UNIX_EPOCH);
    // The log is put back to two events.
    channel.observe(head(EPOCH, 2, 0), channel.asked());
    let rewound = id(EPOCH, 2);
    let (change, heard) = channel.view().change_after(0, rewound).unwrap();
    assert_eq!((change.what, change.cursor), (Changed::Unknown, rewound));
    channel.change(&update(1, &[rewound], rewound), Timestamp::UNIX_EPOCH);
    let (change, heard) = channel.view().change_after(heard, rewound).unwrap();
    assert_eq!(change.what, Changed::Read([rewound].into()));
    assert_eq!(channel.view().change_after(heard, rewound), None);
}

#[test]
fn a_rewind_that_a_page_shows_is_reported() {
    let channel = Channel::new(8);
    channel.observe(head(EPOCH, 9, 5), channel.asked());
    channel.take_in(page(2, 1, &[]), channel.asked());
    let (change, _) = channel.view().change_after(0, id(EPOCH, 2)).unwrap();
    assert_eq!(change.what, Changed::Unknown);
}

/// The position is the same, so that only the revision tells.
#[test]
fn regression_a_rewind_that_lost_only_changes_of_the_inbox_is_reported() {
    let channel = Channel::new(8);
    let top = id(EPOCH, 9);
    channel.observe(head(EPOCH, 9, 5), channel.asked());
    channel.offer(&[event(EPOCH, 9)]);
    channel.observe(head(EPOCH, 9, 4), channel.asked());
    let (change, heard) = channel.view().change_after(0, top).unwrap();
    assert_eq!(change.what, Changed::Unknown);
    channel.change(&update(5, &[top], top), Timestamp::UNIX_EPOCH);
    let (change, heard) = channel.view().change_after(heard, top).unwrap();
    assert_eq!(change.what, Changed::Read([top].into()));
    assert_eq!(channel.view().change_after(heard, top), None);
    // An old reply takes nothing back.
    let asked = channel.asked();
    channel.change(&update(6, &[top], top), Timestamp::UNIX_EPOCH);
    channel.observe(head(EPOCH, 9, 5), asked);
    let (change, heard) = channel.view().change_after(heard, top).unwrap();
    assert_eq!(change.what, Changed::Read([top].into()));
    assert_eq!(channel.view().change_after(heard, top), None);
}

/// The new server gives the revision of a change that is lost to another one, in the same epoch.
#[test]
fn regression_after_a_rewind_a_known_revision_may_be_another_change() {
    let channel = Channel::new(8);
    let top = id(EPOCH, 9);
    channel.observe(head(EPOCH, 9, 4), channel.asked());
    channel.offer(&[event(EPOCH, 9)]);
    let asked = channel.asked();
    channel.change(&update(5, &[top], top), Timestamp::UNIX_EPOCH);
    channel.forget_inbox();
    assert!(matches!(
        channel.view().after(id(EPOCH, 8)),
        AfterCursor::AskStore
    ));
    // What was asked before is not believed.
    channel.observe(head(EPOCH, 9, 5), asked);
    assert_eq!(channel.view().change_after(0, top), None);
    channel.observe(head(EPOCH, 9, 5), channel.asked());
    let (change, heard) = channel.view().change_after(0, top).unwrap();
    assert_eq!((change.what, change.cursor), (Changed::Unknown, top));
    channel.change(&update(6, &[top], top), Timestamp::UNIX_EPOCH);
    let (change, heard) = channel.view().change_after(heard, top).unwrap();
    assert_eq!(change.what, Changed::Read([top].into()));
    assert_eq!(channel.view().change_after(heard, top), None);
}

#[test]
fn a_page_is_taken_in_whole_or_left_to_the_store() {
    let channel = Channel::new(8);
    channel.observe(head(EPOCH, 1, 0), channel.asked());
    channel.take_in(page(3, 0, &[2, 3]), channel.asked());
    assert_eq!(next(&channel, id(EPOCH, 1)), Some(2));
    assert_eq!(next(&channel, id(EPOCH, 2)), Some(3));
    // There is more than the page holds.
    channel.take_in(page(9, 0, &[4, 5]), channel.asked());
    assert_eq!(channel.asked().position.top_seq, 9);
    assert!(matches!(
        channel.view().after(id(EPOCH, 3)),
        AfterCursor::AskStore
    ));
    // An old page takes nothing back.
    let asked = channel.asked();
    channel.offer(&[event(EPOCH, 10), event(EPOCH, 11)]);
    channel.take_in(page(10, 0, &[10]), asked);
    assert_eq!(next(&channel, id(EPOCH, 10)), Some(11));
}

#[test]
fn regression_a_replaced_event_is_left_to_the_store_in_whatever_order_the_events_come() {
    for (known_top, order) in [(0, [1, 2, 3]), (3, [3, 2, 1])] {
        let channel = Channel::new(8);
        channel.observe(head(EPOCH, known_top, 0), channel.asked());
        channel.offer(&order.map(keyed));
        let given = [0, 1, 2].map(|seq| next(&channel, id(EPOCH, seq)));
        assert_eq!(given, [None, None, Some(3)]);
    }
}

#[test]
fn an_event_that_has_left_the_ring_is_not_mistaken_for_a_later_one_with_its_key() {
    let channel = Channel::new(2);
    channel.offer(&[keyed(1), event(EPOCH, 2), event(EPOCH, 3), keyed(4)]);
    assert_eq!(next(&channel, id(EPOCH, 3)), Some(4));
    channel.offer(&[event(EPOCH, 5), keyed(6)]);
    assert_eq!(next(&channel, id(EPOCH, 4)), Some(5));
    assert_eq!(next(&channel, id(EPOCH, 5)), Some(6));
    // Nor after the ring was emptied.
    channel.offer(&[event(EPOCH, 9), keyed(8)]);
    assert_eq!(next(&channel, id(EPOCH, 7)), Some(8));
}

#[test]
fn regression_an_event_that_was_read_before_the_inbox_was_known_is_left_to_the_store() {
    let channel = Channel::new(8);
    let asked = channel.asked();
    channel.offer(&[event(EPOCH, 1)]);
    // Another instance has marked it as read.
    channel.observe(head(EPOCH, 1, 1), asked);
    assert!(matches!(
        channel.view().after(EventId::ORIGIN),
        AfterCursor::AskStore
    ));
}

#[test]
fn regression_the_first_change_is_exact_only_after_a_known_state() {
    let channel = Channel::new(8);
    let asked = channel.asked();
    let top = id(EPOCH, 2);
    let at = Timestamp::UNIX_EPOCH;
    channel.change(&update(2, &[top], top), at);
    channel.change(&update(1, &[id(EPOCH, 1)], top), at);
    channel.observe(head(EPOCH, 2, 0), asked);
    let (change, heard) = channel.view().change_after(0, top).unwrap();
    assert_eq!(change.what, Changed::Unknown);
    assert_eq!(channel.view().change_after(heard, top), None);
    // What follows is known again.
    channel.change(&update(3, &[top], top), at);
    let (change, _) = channel.view().change_after(heard, top).unwrap();
    assert_eq!(change.what, Changed::Read([top].into()));
}

#[test]
fn regression_a_stream_that_begins_before_the_first_known_state_is_told_of_changes_since() {
    let channel = Channel::new(8);
    let asked = channel.asked();
    let top = id(EPOCH, 2);
    // Two streams ask at the same time, and the later state arrives first.
    channel.observe(head(EPOCH, 2, 3), asked);
    channel.observe(head(EPOCH, 1, 2), asked);
    let (change, heard) = channel.view().change_after(0, top).unwrap();
    assert_eq!((change.what, change.cursor), (Changed::Unknown, top));
    // Once is enough for all of them, and a stream that begins later has heard it all.
    channel.observe(head(EPOCH, 1, 1), asked);
    channel.observe(head(EPOCH, 2, 3), channel.asked());
    assert_eq!(channel.view().change_after(heard, top), None);
    // Nor does it need a log to begin with.
    let channel = Channel::new(8);
    let asked = channel.asked();
    channel.observe(head(EPOCH, 2, 3), asked);
    channel.observe((&Head::EMPTY).into(), asked);
    let (change, _) = channel.view().change_after(0, top).unwrap();
    assert_eq!((change.what, change.cursor), (Changed::Unknown, top));
}

/// Notes what becomes of it, and whether the channel was locked then.
struct Notes {
    name: &'static str,
    channel: Arc<Channel>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Notes {
    fn note(&self, what: &str) {
        let is_locked = self.channel.0.try_lock().is_err();
        let lock = if is_locked { " under the lock" } else { "" };
        let seen = format!("{} {what}{lock}", self.name);
        self.seen.lock().unwrap().push(seen);
    }
}

impl Wake for Notes {
    fn wake(self: Arc<Self>) {
        self.note("woken");
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        self.note("dropped");
    }
}

#[test]
fn who_waits_is_woken_once_and_no_waker_is_used_under_the_lock() {
    let (channel, seen) = (Arc::new(Channel::new(8)), Arc::default());
    let wait = |place, name| {
        let (channel, seen) = (Arc::clone(&channel), Arc::clone(&seen));
        let notes = Notes {
            name,
            channel: Arc::clone(&channel),
            seen,
        };
        channel.wake_later(place, &Arc::new(notes).into());
    };
    let [anna, ben, cid] = [(); 3].map(|()| channel.enter());
    wait(anna, "the first of anna");
    wait(anna, "anna");
    wait(ben, "ben");
    wait(cid, "cid");
    channel.leave(cid);
    // The place is free, and the next stream in it does not wait yet.
    assert_eq!(channel.enter(), cid);
    channel.offer(&[event(EPOCH, 1)]);
    channel.offer(&[event(EPOCH, 2)]);
    let expected = [
        "the first of anna dropped",
        "cid dropped",
        "anna woken",
        "anna dropped",
        "ben woken",
        "ben dropped",
    ];
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[cfg(target_pointer_width = "64")]
#[test]
fn what_a_user_with_streams_takes_is_small() {
    // With its two counts: the size of an allocation.
    assert!(size_of::<Channel>() + 16 <= 224);
    assert_eq!(size_of::<UserId>(), 8);
}
