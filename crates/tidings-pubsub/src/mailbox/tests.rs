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
            let text = std::str::from_utf8(message.payload()).unwrap();
            Some(Ok(text.parse().unwrap()))
        }
        Poll::Ready(Some(Received::Lagged(lagged))) => Some(Err(lagged)),
        Poll::Ready(None) | Poll::Pending => None,
    }
}

#[test]
fn an_interruption_is_reported_where_it_happened() {
    let mailbox = Mailbox::new(SubscribeOptions::default());
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
    let mailbox = Mailbox::new(SubscribeOptions::default().with_capacity(1));
    mailbox.interrupted();
    mailbox.deliver(message(1));
    mailbox.deliver(message(2));
    assert_eq!(take(&mailbox), Some(Err(Lagged::unknown())));
    assert_eq!(take(&mailbox), Some(Ok(2)));
}

#[test]
fn a_closed_mailbox_takes_nothing() {
    let mailbox = Mailbox::new(SubscribeOptions::default());
    mailbox.deliver(message(1));
    mailbox.close();
    mailbox.deliver(message(2));
    mailbox.interrupted();
    assert_eq!(take(&mailbox), Some(Ok(1)));
    assert_eq!(take(&mailbox), None);
}

fn waits(capacity: usize) -> Mailbox {
    let overflow = Overflow::Wait(Duration::from_secs(5));
    Mailbox::new(
        SubscribeOptions::default()
            .with_capacity(capacity)
            .with_overflow(overflow),
    )
}

#[tokio::test(start_paused = true)]
async fn messages_wait_in_line_for_as_long_as_they_may() {
    let mailbox = waits(1);
    mailbox.deliver_or_queue(message(0));
    mailbox.deliver_or_queue(message(1));
    tokio::time::advance(Duration::from_secs(3)).await;
    mailbox.deliver_or_queue(message(2));
    assert_eq!(take(&mailbox), Some(Ok(0)));
    tokio::time::advance(Duration::from_secs(3)).await;
    // There was room for this one in time, though it was not read in time.
    assert_eq!(take(&mailbox), Some(Ok(1)));
    mailbox.deliver_or_queue(message(3));
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(take(&mailbox), Some(Ok(2)));
    assert_eq!(take(&mailbox), Some(Err(Lagged::by(1))));
    assert_eq!(take(&mailbox), None);
}

/// As who wants to wait for ever would write it.
#[tokio::test]
async fn regression_the_longest_duration_is_a_limit() {
    let overflow = Overflow::Wait(Duration::MAX);
    let mailbox = Mailbox::new(
        SubscribeOptions::default()
            .with_capacity(1)
            .with_overflow(overflow),
    );
    for number in 0..2 {
        mailbox.deliver_or_queue(message(number));
    }
    for number in 0..2 {
        assert_eq!(take(&mailbox), Some(Ok(number)));
    }
    mailbox.deliver_or_queue(message(2));
    let waiting = mailbox.deliver(message(3)).unwrap().settle();
    let reading = async {
        for number in 2..4 {
            while take(&mailbox) != Some(Ok(number)) {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::join!(waiting, reading);
}

#[tokio::test(start_paused = true)]
async fn the_line_is_bounded() {
    let mailbox = waits(2);
    let all = 2 + MAX_QUEUED as u64;
    for number in 0..all + 5 {
        mailbox.deliver_or_queue(message(number));
    }
    // Without the budget that would make the reader yield.
    let reading = tokio::task::unconstrained(async {
        for number in 0..all {
            assert_eq!(take(&mailbox), Some(Ok(number)));
        }
        assert_eq!(take(&mailbox), Some(Err(Lagged::by(5))));
        assert_eq!(take(&mailbox), None);
    });
    reading.await;
}

#[derive(Debug, Clone)]
enum Arrival {
    Post,
    Take,
    Interrupt,
    Pass(u64),
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let arrival = prop_oneof![
        4 => Just(Arrival::Post),
        2 => Just(Arrival::Take),
        1 => (1..4_u64).prop_map(Arrival::Pass),
        1 => Just(Arrival::Interrupt),
    ];
    proptest::collection::vec(arrival, 0..200)
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
        let options = SubscribeOptions::default().with_capacity(capacity).with_overflow(overflow);
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
            let kept = mailbox.shared.lock().ready.len();
            prop_assert!(kept <= capacity, "{kept}");
        }
        drop(waiting);
        while account(take(&mailbox)) {}
        prop_assert_eq!(taken + missed, delivered);
    }

    /// The same law where messages wait by themselves; and a report is where messages are missing.
    #[test]
    fn every_message_that_is_posted_is_taken_or_reported_in_its_place(
        arrivals in arrivals(),
        overflow in overflow(),
        capacity in 1..6_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(tokio::task::unconstrained(async {
            let options = SubscribeOptions::default().with_capacity(capacity).with_overflow(overflow);
            let mailbox = Mailbox::new(options);
            let (mut posted, mut next) = (0, 0);
            // An interruption takes the place of a count: what it hides is not known.
            let mut hidden = false;
            let mut account = |taken: Option<Result<u64, Lagged>>, posted: u64| {
                match taken {
                    Some(Ok(number)) => {
                        assert!(number == next || (hidden && number > next), "{number}, not {next}");
                        (next, hidden) = (number + 1, false);
                    }
                    Some(Err(lagged)) => match lagged.missed() {
                        Some(missed) => next += missed,
                        None => hidden = true,
                    },
                    None => {
                        assert!(next == posted || hidden, "{next} of {posted}");
                        (next, hidden) = (posted, false);
                        return false;
                    }
                }
                true
            };
            for arrival in arrivals {
                match arrival {
                    Arrival::Post => {
                        mailbox.deliver_or_queue(message(posted));
                        posted += 1;
                    }
                    Arrival::Take => {
                        account(take(&mailbox), posted);
                    }
                    Arrival::Interrupt => mailbox.interrupted(),
                    Arrival::Pass(tenths) => {
                        tokio::time::advance(Duration::from_millis(tenths * 100)).await;
                    }
                }
                let state = mailbox.shared.lock();
                assert!(state.ready.len() <= capacity);
                assert!(state.queued.is_empty() || state.ready.len() == capacity);
            }
            while account(take(&mailbox), posted) {}
        }));
    }
}
