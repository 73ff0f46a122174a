use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::support::{
    NEVER, from_start, key, number, numbered, recorder, some_consumer, streams, subscribe, until,
};
use crate::engine::{ClaimOptions, ConsumerKey, Engine, GroupKey, Outcome, Receipt, Settlement};
use crate::{BatchError, HandlerError, Message, StartFrom};

/// A group never works on more messages than its bound, however many consumers and handlers it has, and
/// works on as many.
pub async fn a_group_works_on_no_more_messages_than_its_bound(engine: Arc<dyn Engine>) {
    const BOUND: usize = 3;
    let streams = [streams(engine.clone()), streams(engine)];
    streams[0].publish_batch("s", numbered(60)).await.unwrap();
    let [running, most] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let work = move |messages: usize| {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        async move {
            let now = running.fetch_add(messages, Ordering::SeqCst) + messages;
            most.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(3)).await;
            running.fetch_sub(messages, Ordering::SeqCst);
            most.load(Ordering::SeqCst)
        }
    };
    let options = from_start()
        .with_concurrency(4)
        .with_max_batch(2)
        .with_max_in_flight(u32::try_from(BOUND).unwrap());
    let working = work.clone();
    let one_by_one = move |message: Message| {
        let working = working(1);
        async move {
            working.await;
            if number(&message).is_multiple_of(7) && message.attempt == 1 {
                return Err(HandlerError::retry_after(Duration::ZERO, "once more"));
            }
            Ok(())
        }
    };
    let working = work.clone();
    let in_batches = move |messages: Vec<Message>| {
        let working = working(messages.len());
        async move {
            working.await;
            Ok::<(), BatchError>(())
        }
    };
    let first = subscribe(&streams[0], "s", "g", options.clone(), one_by_one).await;
    let second = streams[1].subscribe_batch("s", "g", options, in_batches);
    let second = second.await.unwrap();
    until(|| async { first.stats().acknowledged + second.stats().acknowledged == 60 }).await;
    first.close().await;
    second.close().await;
    assert_eq!(work(0).await, BOUND);
}

/// A consumer that waits because its group is at its bound continues when another one of its process has settled a
/// message.
pub async fn a_settlement_wakes_consumers_at_the_bound(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", numbered(2)).await.unwrap();
    let options = from_start()
        .with_max_in_flight(1)
        .with_visibility_timeout(NEVER)
        .with_poll_interval(NEVER);
    let (recorder, mut seen) = recorder();
    let gate = Arc::new(Semaphore::new(0));
    let (noting, waiting) = (recorder.clone(), Arc::clone(&gate));
    let gated = move |message: Message| {
        let (recorder, gate) = (noting.clone(), Arc::clone(&waiting));
        async move {
            recorder.note(message).await;
            gate.acquire().await?.forget();
            Ok(())
        }
    };
    let left = subscribe(&streams, "s", "g", options.clone(), gated).await;
    assert_eq!(seen.numbers(1).await, [1]);
    left.pause();
    let right = subscribe(&streams, "s", "g", options, recorder).await;
    // Its first claim finds the group at its bound.
    tokio::time::sleep(Duration::from_millis(50)).await;
    gate.add_permits(1);
    assert_eq!(seen.numbers(1).await, [2]);
    left.close().await;
    right.close().await;
}

async fn claim(
    engine: &Arc<dyn Engine>,
    group: &GroupKey,
    visibility: Duration,
    bound: u32,
) -> (Vec<Receipt>, Option<Duration>) {
    let consumer = ConsumerKey {
        consumer: fastrand::u64(..).to_string().into(),
        ..some_consumer(group)
    };
    let options = ClaimOptions {
        max_in_flight: NonZeroU32::new(bound),
        ..visibility.into()
    };
    let claimed = engine.claim(&consumer, 10, options).await.unwrap();
    let receipts = claimed.messages.iter().map(|it| it.receipt);
    (receipts.collect(), claimed.next_due)
}

async fn settle(engine: &Arc<dyn Engine>, group: &GroupKey, receipt: Receipt, outcome: Outcome) {
    let settlements = Arc::from([Settlement { receipt, outcome }]);
    assert_eq!(engine.settle(group, settlements).await.unwrap(), [true]);
}

/// What counts towards the bound is claimed, by whichever consumer, new or again, and no longer than its claim
/// lasts. At the bound, a consumer has nothing to wait for but the end of a claim.
pub async fn what_is_claimed_counts_towards_the_bound_while_it_lasts(engine: Arc<dyn Engine>) {
    let streams = streams(engine.clone());
    let group = key(&streams, "s", "g");
    engine
        .open_group(&group, StartFrom::Earliest)
        .await
        .unwrap();
    streams.publish_batch("s", numbered(20)).await.unwrap();
    let later = Outcome::Retry {
        delay: Duration::ZERO,
        error: None,
    };

    let (two, _) = claim(&engine, &group, NEVER, 2).await;
    assert_eq!(two.len(), 2);
    let (one, next_due) = claim(&engine, &group, NEVER, 3).await;
    assert_eq!(one.len(), 1);
    assert!(next_due > Some(Duration::from_secs(3600)), "{next_due:?}");
    settle(&engine, &group, two[0], later).await;
    // One that waits, and new ones, do not make a consumer come again and again.
    let (none, next_due) = claim(&engine, &group, NEVER, 2).await;
    assert_eq!(none, []);
    assert!(next_due > Some(Duration::from_secs(3600)), "{next_due:?}");
    let (again, _) = claim(&engine, &group, NEVER, 3).await;
    assert_eq!(
        again.iter().map(|it| it.id).collect::<Vec<_>>(),
        [two[0].id]
    );
    let (none, next_due) = claim(&engine, &group, NEVER, 3).await;
    assert_eq!(none, []);
    assert!(next_due > Some(Duration::from_secs(3600)), "{next_due:?}");

    for receipt in [two[1], one[0], again[0]] {
        settle(&engine, &group, receipt, Outcome::Acknowledged).await;
    }
    let short = Duration::from_millis(10);
    let (expiring, next_due) = claim(&engine, &group, short, 4).await;
    assert_eq!(expiring.len(), 4);
    assert!(next_due.unwrap() <= short);
    // First as parts of an expired claim, then as messages that come again.
    for _ in 0..2 {
        until(|| async { claim(&engine, &group, short, 4).await.0.len() == 4 }).await;
    }
    let all = streams.stats("s").await.unwrap().groups.remove(0);
    assert_eq!((all.pending, all.lag), (4, 13));
}
