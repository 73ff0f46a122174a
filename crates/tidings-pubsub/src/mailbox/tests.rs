use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{Namespace, Topic};

fn topic() -> Topic {
    Namespace::default().topic("test").unwrap()
}

fn message(number: u64) -> Message {
    Message::new(topic(), number.to_string())
}

/// What can be taken out now: the number of a message, or a report.
fn take(mailbox: &Mailbox) -> Option<Result<u64, Lagged>> {
    match mailbox.poll_next(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Received::Message(message))) => {
            let text = std::str::from_utf8(&message.payload).unwrap();
            Some(Ok(text.parse().unwrap()))
        }
        Poll::Ready(Some(Received::Lagged(lagged))) => Some(Err(lagged)),
        Poll::Ready(None) | Poll::Pending => None,
    }
}

#[test]
fn an_interruption_is_reported_where_it_happened() {
    let mailbox = Mailbox::new(Options::default());
    mailbox.deliver(message(1));
    mailbox.interrupted();
    mailbox.interrupted();
    mailbox.deliver(message(2));
    assert_eq!(take(&mailbox), Some(Ok(1)));
    assert_eq!(take(&mailbox), Some(Err(Lagged::unknown())));
    assert_eq!(take(&mailbox), Some(Ok(2)));
    assert_eq!(take(&mailbox), None);
    mailbox.interrupted();
    assert_eq!(take(&mailbox), Some(Err(Lagged::unknown())));
}

#[test]
fn an_interruption_outlives_the_messages_around_it() {
    let mailbox = Mailbox::new(Options::default().with_capacity(1));
    mailbox.interrupted();
    mailbox.deliver(message(1));
    mailbox.deliver(message(2));
    assert_eq!(take(&mailbox), Some(Err(Lagged::unknown())));
    assert_eq!(take(&mailbox), Some(Ok(2)));
}

#[test]
fn a_closed_mailbox_takes_nothing() {
    let mailbox = Mailbox::new(Options::default());
    mailbox.deliver(message(1));
    mailbox.close();
    mailbox.deliver(message(2));
    mailbox.interrupted();
    assert_eq!(take(&mailbox), Some(Ok(1)));
    assert_eq!(take(&mailbox), None);
}

#[derive(Debug, Clone)]
enum Step {
    Deliver,
    Take,
    /// Drops what waits for room, the oldest first.
    GiveUp,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Deliver),
        2 => Just(Step::Take),
        1 => Just(Step::GiveUp),
    ];
    proptest::collection::vec(step, 0..200)
}

fn overflow() -> impl Strategy<Value = Overflow> {
    prop_oneof![
        Just(Overflow::DropOldest),
        Just(Overflow::DropNewest),
        Just(Overflow::Wait(Duration::from_secs(1))),
    ]
}

proptest! {
    /// The law of the mailbox: whatever happens, each message is either taken out or counted as
    /// missed, never both; messages come in order; and no more are kept than there is room for.
    #[test]
    fn every_message_is_taken_or_counted(
        steps in steps(),
        overflow in overflow(),
        capacity in 1..6_usize,
    ) {
        let options = Options::default().with_capacity(capacity).with_overflow(overflow);
        let mailbox = Mailbox::new(options);
        let (mut delivered, mut taken, mut missed) = (0_u64, 0_u64, 0_u64);
        let mut last = None;
        let mut waiting = VecDeque::new();
        let mut account = |next: Option<Result<u64, Lagged>>| {
            match next {
                Some(Ok(number)) => {
                    assert!(last < Some(number), "{number} after {last:?}");
                    last = Some(number);
                    taken += 1;
                }
                Some(Err(lagged)) => missed += lagged.missed().unwrap(),
                None => return false,
            }
            true
        };
        for step in steps {
            match step {
                Step::Deliver => {
                    waiting.extend(mailbox.deliver(message(delivered)));
                    delivered += 1;
                }
                Step::Take => {
                    account(take(&mailbox));
                }
                Step::GiveUp => drop(waiting.pop_front()),
            }
            let kept = mailbox.shared.lock().letters.len();
            prop_assert!(kept <= capacity, "{kept}");
        }
        drop(waiting);
        while account(take(&mailbox)) {}
        prop_assert_eq!(taken + missed, delivered);
    }
}
