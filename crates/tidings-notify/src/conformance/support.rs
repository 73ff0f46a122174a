//! What the behaviours share.

use jiff::{SignedDuration, Timestamp};

use crate::event::to_microseconds;
use crate::{
    Draft, Epoch, Event, EventType, Head, InboxPage, InboxQuery, Payload, Store, StoreError, UserId,
};

pub(super) fn user(name: &str) -> UserId {
    UserId::new(name).expect("the name is valid")
}

pub(super) fn draft(user: &UserId, number: u64) -> Draft {
    Draft::new(
        user.clone(),
        EventType::new("test.number").expect("the name is valid"),
        Payload::from_value(&number).expect("a number is JSON"),
    )
}

pub(super) fn now() -> Timestamp {
    to_microseconds(Timestamp::now())
}

/// A time after that of everything stored so far, and not after that of anything stored later.
pub(super) fn next_moment() -> Timestamp {
    let moment = now() + SignedDuration::from_micros(1);
    while now() < moment {
        std::hint::spin_loop();
    }
    moment
}

pub(super) fn at_second(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000_000 + second).expect("the time is within range")
}

pub(super) async fn append(store: &dyn Store, user: &UserId, count: u64) -> Vec<Event> {
    let drafts = (0..count).map(|number| draft(user, number)).collect();
    ok(store.append(drafts).await)
}

/// Appends one event for each size, with a payload of so many bytes.
pub(super) async fn append_sized(store: &dyn Store, user: &UserId, sizes: &[usize]) {
    let drafts = sizes.iter().map(|size| Draft {
        payload: Payload::parse(&"1".repeat(*size)).expect("digits are JSON"),
        ..draft(user, 0)
    });
    ok(store.append(drafts.collect()).await);
}

pub(super) async fn append_stamped(store: &dyn Store, user: &UserId, seconds: &[i64]) -> Epoch {
    let drafts = seconds
        .iter()
        .map(|second| draft(user, 0).with_timestamp(at_second(*second)));
    ok(store.append(drafts.collect()).await)[0].id.epoch
}

pub(super) async fn head(store: &dyn Store, user: &UserId) -> Head {
    ok(store.head(user).await)
}

pub(super) async fn inbox(store: &dyn Store, user: &UserId, query: &InboxQuery) -> InboxPage {
    ok(store.inbox(user, query).await)
}

pub(super) fn seqs(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.id.seq).collect()
}

pub(super) fn numbers(events: &[Event]) -> Vec<u64> {
    let number = |event: &Event| {
        event
            .payload
            .as_str()
            .parse()
            .expect("the payload is a number")
    };
    events.iter().map(number).collect()
}

#[track_caller]
pub(super) fn ok<T>(reply: Result<T, StoreError>) -> T {
    reply.expect("the call succeeds")
}
