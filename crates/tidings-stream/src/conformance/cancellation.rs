//! Futures that are dropped, at each of their awaits.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::support::{NEVER, contents, key, number, numbered, some_consumer, soon, streams};
use crate::engine::{ClaimedMessage, Engine, GroupKey, Outcome, Settlement};
use crate::{Headers, StartFrom};

/// More polls than any call of an engine needs.
const MAX_POLLS: usize = 64;

/// Drops a future after so many polls that found it waiting; returns the output if it ended before.
async fn poll_up_to<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn group(engine: &Arc<dyn Engine>) -> GroupKey {
    let key = key(&streams(engine.clone()), "s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    key
}

async fn append(engine: &Arc<dyn Engine>, key: &GroupKey, count: u64) {
    let appended = engine.append(&key.stream, numbered(count), None).await;
    assert_eq!(appended.unwrap().len() as u64, count);
}

/// Claims until there are so many.
async fn claim(engine: &Arc<dyn Engine>, key: &GroupKey, count: usize) -> Vec<ClaimedMessage> {
    soon(async {
        let mut claimed = Vec::new();
        while claimed.len() < count {
            let more = engine
                .claim(&some_consumer(key), count, NEVER.into())
                .await
                .unwrap();
            if more.messages.is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            claimed.extend(more.messages);
        }
        claimed
    })
    .await
}

fn settlements(claimed: &[ClaimedMessage], outcomes: &[Outcome]) -> Arc<[Settlement]> {
    let pairs = claimed.iter().zip(outcomes);
    let settlement = |(it, outcome): (&ClaimedMessage, &Outcome)| Settlement {
        receipt: it.receipt,
        outcome: outcome.clone(),
    };
    pairs.map(settlement).collect()
}

/// Whatever await of a settlement a future is dropped at, all of it is done or nothing: a second call with
/// the same receipts does what is left, and no message is lost or comes again.
pub async fn a_dropped_settlement_is_done_whole_or_not_at_all(engine: Arc<dyn Engine>) {
    let key = group(&engine).await;
    let outcomes = [
        Outcome::Acknowledged,
        Outcome::Retry {
            delay: Duration::ZERO,
            error: Some("again".into()),
        },
        Outcome::Dead {
            to: key.stream.dead_letter(),
            provenance: Headers::new(),
        },
    ];
    for polls in 0..MAX_POLLS {
        append(&engine, &key, 3).await;
        let claimed = claim(&engine, &key, 3).await;
        let all = settlements(&claimed, &outcomes);
        let first = poll_up_to(polls, engine.settle(&key, all.clone())).await;
        let second = engine.settle(&key, all).await.unwrap();
        let was_done = !second[0];
        assert_eq!(second, [!was_done; 3], "after {polls} polls");
        if let Some(first) = &first {
            assert_eq!(first.as_ref().unwrap(), &[true; 3]);
            assert!(was_done);
        }
        let again = claim(&engine, &key, 1).await;
        assert_eq!(again[0].message.id, claimed[1].message.id);
        assert_eq!(again[0].message.attempt, 2);
        let acknowledged = engine.settle(&key, settlements(&again, &outcomes[..1]));
        assert_eq!(acknowledged.await.unwrap(), [true]);
        let nothing = engine
            .claim(&some_consumer(&key), 3, NEVER.into())
            .await
            .unwrap();
        assert!(nothing.messages.is_empty());
        let stats = engine.stats(&key.stream).await.unwrap().groups.remove(0);
        assert_eq!((stats.pending, stats.lag), (0, 0));
        assert_eq!(stats.dead_lettered, polls as u64 + 1);
        let letters = engine.stats(&key.stream.dead_letter()).await.unwrap();
        assert_eq!(letters.messages, polls as u64 + 1);
        if first.is_some() {
            return;
        }
    }
    panic!("a settlement needs no more than {MAX_POLLS} polls");
}

/// Whatever await of a claim a future is dropped at, its messages come again at once, and their attempt does
/// not count: no handler was given them.
pub async fn a_dropped_claim_hands_back_what_it_took(engine: Arc<dyn Engine>) {
    let key = group(&engine).await;
    for polls in 0..MAX_POLLS {
        append(&engine, &key, 2).await;
        let consumer = some_consumer(&key);
        let first = poll_up_to(polls, engine.claim(&consumer, 2, NEVER.into())).await;
        let has_ended = first.is_some();
        let mut claimed = first.map_or_else(Vec::new, |claimed| claimed.unwrap().messages);
        // A claim that was dropped before may be made only now, when it is too late to hand it back by way of
        // another handle: then its messages come a little later.
        let left = 2 - claimed.len();
        claimed.extend(claim(&engine, &key, left).await);
        assert_eq!(claimed.len(), 2);
        for claimed in &claimed {
            assert_eq!(claimed.message.attempt, 1, "after {polls} polls");
        }
        let outcomes = [Outcome::Acknowledged, Outcome::Acknowledged];
        let acknowledged = engine.settle(&key, settlements(&claimed, &outcomes)).await;
        assert_eq!(acknowledged.unwrap(), [true; 2]);
        if has_ended {
            return;
        }
    }
    panic!("a claim needs no more than {MAX_POLLS} polls");
}

/// Whatever await of an append a future is dropped at, its messages are all there or none is.
pub async fn a_dropped_append_is_done_whole_or_not_at_all(engine: Arc<dyn Engine>) {
    let streams = streams(engine.clone());
    let key = group(&engine).await;
    for polls in 0..MAX_POLLS {
        let appended = engine.append(&key.stream, numbered(3), None);
        if let Some(appended) = poll_up_to(polls, appended).await {
            let ids = appended.unwrap();
            // What was dropped before is there, or never will be, or comes later by way of another handle.
            let kept = contents(&streams, "s").await;
            let payloads: Vec<u64> = kept.iter().map(number).collect();
            assert_eq!(payloads, [1, 2, 3].repeat(kept.len() / 3));
            assert!(kept.iter().any(|message| message.id == ids[2]));
            return;
        }
    }
    panic!("an append needs no more than {MAX_POLLS} polls");
}
