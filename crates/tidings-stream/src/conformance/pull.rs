use std::collections::{BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::support::{
    NEVER, from_start, number, numbered, recorder, soon, streams, subscribe, until,
};
use crate::engine::Engine;
use crate::{Error, HandlerError, NewMessage, PulledMessage, PulledMessages, RetryDelay, Streams};

async fn pull(streams: &Streams, options: crate::SubscribeOptions) -> PulledMessages {
    streams.pull("s", "g", options).await.unwrap()
}

async fn next(messages: &mut PulledMessages) -> PulledMessage {
    let next = soon(messages.next()).await;
    next.expect("its consumer is running")
}

async fn pending(streams: &Streams) -> u64 {
    streams.stats("s").await.unwrap().groups[0].pending
}

/// A pull claims nothing before it is asked, and then no more than it may have in hand.
pub async fn a_pull_claims_what_it_is_asked_for(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let options = from_start().with_concurrency(3);
    let mut messages = pull(&streams, options).await;
    streams.publish_batch("s", numbered(10)).await.unwrap();
    // The other member finds all of them.
    let (recorder, mut seen) = recorder();
    let other = subscribe(&streams, "s", "g", from_start(), recorder).await;
    let all: Vec<u64> = (1..=10).collect();
    assert_eq!(seen.numbers(10).await, all);
    until(|| async { other.stats().acknowledged == 10 }).await;
    other.close().await;

    streams.publish_batch("s", numbered(10)).await.unwrap();
    let mut numbers = BTreeSet::new();
    let mut in_hand = VecDeque::new();
    while numbers.len() < 10 {
        if in_hand.len() == 3 {
            until(|| async { pending(&streams).await == 3 }).await;
            in_hand
                .pop_front()
                .map(PulledMessage::acknowledge)
                .unwrap()
                .unwrap();
        }
        let pulled = next(&mut messages).await;
        assert_eq!(pulled.message.attempt, 1);
        numbers.insert(number(&pulled.message));
        in_hand.push_back(pulled);
    }
    for pulled in in_hand {
        pulled.acknowledge().unwrap();
    }
    assert_eq!(numbers, (1..=10).collect());
    let consumer = messages.consumer();
    until(|| async { consumer.stats().acknowledged == 10 }).await;
    assert_eq!(pending(&streams).await, 0);
    consumer.close().await;
    assert!(soon(messages.next()).await.is_none());
}

/// A pull claims nothing once it has what it was asked for: what others may have is not held up for a moment.
pub async fn a_pull_that_is_not_asked_holds_nothing_up(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let mut messages = pull(&streams, from_start()).await;
    streams.publish_batch("s", numbered(3)).await.unwrap();
    next(&mut messages).await.acknowledge().unwrap();
    let consumer = messages.consumer();
    until(|| async { consumer.stats().acknowledged == 1 }).await;
    let (recorder, mut seen) = recorder();
    let other = subscribe(&streams, "s", "g", from_start(), recorder).await;
    assert_eq!(seen.numbers(2).await, [2, 3]);
    assert_eq!(messages.consumer().stats().released, 0);
    other.close().await;
    messages.consumer().close().await;
}

/// What is done with a pulled message is what becomes of it.
pub async fn a_pulled_message_is_acknowledged_retried_or_rejected(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let options = from_start()
        .with_retry_delay(RetryDelay::fixed(Duration::ZERO))
        .with_max_retries(1);
    let mut messages = pull(&streams, options).await;
    streams.publish_batch("s", numbered(5)).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 8 {
        let pulled = next(&mut messages).await;
        let (number, attempt) = (number(&pulled.message), pulled.message.attempt);
        seen.push((number, attempt));
        match (number, attempt) {
            (2, _) => pulled.reject("never").unwrap(),
            (3, 1) => pulled.retry_after(Duration::ZERO, "at once").unwrap(),
            // Once more, and to the dead letters then.
            (4, _) => drop(pulled),
            (5, _) => pulled.retry_after(NEVER, "tomorrow").unwrap(),
            (1, 1) => pulled.settle(Err(HandlerError::retry("again"))).unwrap(),
            _ => pulled.acknowledge().unwrap(),
        }
    }
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            (1, 1),
            (1, 2),
            (2, 1),
            (3, 1),
            (3, 2),
            (4, 1),
            (4, 2),
            (5, 1)
        ]
    );
    let consumer = messages.consumer();
    until(|| async { consumer.stats().acknowledged + consumer.stats().dead_lettered == 4 }).await;
    until(|| async { consumer.stats().retried == 4 }).await;
    assert_eq!(consumer.stats().dead_lettered, 2);
    let waiting = streams.pending("s", "g", None, 10).await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert!(waiting[0].due_in > NEVER / 2, "{waiting:?}");
    assert_eq!(waiting[0].last_error.as_deref(), Some("tomorrow"));
    let letters = streams.read("s.dead", None, 10).await.unwrap();
    let errors: Vec<_> = letters
        .iter()
        .map(|letter| (number(letter), &*letter.headers[crate::dead_letter::ERROR]))
        .collect();
    assert_eq!(
        errors,
        [(2, "never"), (4, "the pulled message was dropped")]
    );
    consumer.close().await;
}

/// A pulled message has its time, and as much again whenever it is still worked on.
pub async fn a_pulled_message_lasts_while_it_is_worked_on(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    // The most of it is what the process may stand still for.
    let visibility = Duration::from_secs(5);
    let options = from_start().with_visibility_timeout(visibility);
    let mut messages = pull(&streams, options.with_concurrency(2)).await;
    streams.publish_batch("s", numbered(2)).await.unwrap();
    let (kept, forgotten) = (next(&mut messages).await, next(&mut messages).await);
    let number_of_forgotten = number(&forgotten.message);
    let again = {
        let mut again = pin!(next(&mut messages));
        loop {
            tokio::select! {
                again = &mut again => break again,
                () = tokio::time::sleep(visibility / 8) => kept.still_working().unwrap(),
            }
        }
    };
    assert!(matches!(forgotten.still_working(), Err(Error::ClaimLost)));
    assert!(matches!(forgotten.acknowledge(), Err(Error::ClaimLost)));
    kept.acknowledge().unwrap();
    assert_eq!(number(&again.message), number_of_forgotten);
    assert_eq!(again.message.attempt, 2);
    again.acknowledge().unwrap();
    let consumer = messages.consumer();
    until(|| async { consumer.stats().acknowledged == 2 }).await;
    assert_eq!((consumer.stats().retried, consumer.stats().stale), (1, 0));
    consumer.close().await;
}

/// What a pull has claimed and not given goes to others as if it had not been claimed: when it has waited for
/// a while, and when the pull is closed. What was taken can be settled until closing waits no longer.
pub async fn what_a_pull_has_claimed_and_not_given_goes_back(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let options = from_start()
        .with_concurrency(5)
        .with_visibility_timeout(Duration::from_secs(2));
    let mut messages = pull(&streams, options).await;
    streams.publish_batch("s", numbered(5)).await.unwrap();
    let first = next(&mut messages).await;
    first.acknowledge().unwrap();
    let stats = || messages.consumer().stats();
    until(|| async { stats().released >= 4 && pending(&streams).await == 4 }).await;

    let options = from_start()
        .with_concurrency(5)
        .with_visibility_timeout(NEVER);
    let mut others = pull(&streams, options).await;
    let pulled = next(&mut others).await;
    assert_eq!(pulled.message.attempt, 1);
    let closing = async { others.consumer().close().await };
    let (report, settled) = tokio::join!(closing, async { pulled.acknowledge() });
    settled.unwrap();
    assert_eq!(
        (report.finished, report.released, report.abandoned),
        (1, 3, 0)
    );
    assert!(soon(others.next()).await.is_none());

    for _ in 0..3 {
        let pulled = next(&mut messages).await;
        assert_eq!(pulled.message.attempt, 1);
        pulled.acknowledge().unwrap();
    }
    streams.publish("s", NewMessage::new("6")).await.unwrap();
    let last = next(&mut messages).await;
    assert_eq!(number(&last.message), 6);
    // Dropping the stream closes its consumer, and leaves what was taken.
    drop(messages);
    last.acknowledge().unwrap();
    until(|| async { pending(&streams).await == 0 }).await;
}
