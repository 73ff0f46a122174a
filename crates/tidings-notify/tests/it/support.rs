//! What the tests share.

use tidings_notify::{Draft, Event, EventType, Item, Payload, Subscription, UserId};

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// A draft for `ann` that carries a number.
pub(crate) fn draft(number: u64) -> Draft {
    Draft::new(
        user("ann"),
        EventType::new("test.number").unwrap(),
        Payload::from_value(&number).unwrap(),
    )
}

pub(crate) fn number(event: &Event) -> u64 {
    event.payload.as_str().parse().unwrap()
}

/// The numbers of the next events, whatever else the stream gives in between.
pub(crate) async fn numbers(stream: &mut Subscription, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        if let Item::Event(event) = stream.next().await.unwrap() {
            numbers.push(number(&event));
        }
    }
    numbers
}
