use std::sync::Arc;
use std::time::Duration;

use super::support::{NEVER, key, numbered, some_consumer, soon, streams, until};
use crate::engine::{ClaimedMessage, Engine, GroupKey, Outcome, Receipt, Settlement};
use crate::{Error, Headers, StartFrom, StreamName};

const SHORT: Duration = Duration::from_millis(10);

async fn group_with(engine: &Arc<dyn Engine>, messages: u64) -> GroupKey {
    let streams = streams(engine.clone());
    let key = key(&streams, "s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    streams
        .publish_batch("s", numbered(messages))
        .await
        .unwrap();
    key
}

async fn claim(
    engine: &Arc<dyn Engine>,
    key: &GroupKey,
    max: usize,
    visibility: Duration,
) -> Vec<ClaimedMessage> {
    engine
        .claim(&some_consumer(key), max, visibility.into())
        .await
        .unwrap()
        .messages
}

async fn extend(engine: &Arc<dyn Engine>, key: &GroupKey, receipt: Receipt) -> bool {
    engine
        .extend(key, Arc::from([receipt]), NEVER)
        .await
        .unwrap()[0]
}

/// Claims until something is found.
async fn claim_again(
    engine: &Arc<dyn Engine>,
    key: &GroupKey,
    visibility: Duration,
) -> Vec<ClaimedMessage> {
    let mut found = Vec::new();
    while found.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        found = claim(engine, key, 100, visibility).await;
    }
    found
}

async fn settle(
    engine: &Arc<dyn Engine>,
    key: &GroupKey,
    receipt: Receipt,
    outcome: Outcome,
) -> bool {
    let settlements = Arc::from([Settlement { receipt, outcome }]);
    engine.settle(key, settlements).await.unwrap()[0]
}

fn every_outcome(key: &GroupKey) -> [Outcome; 4] {
    [
        Outcome::Acknowledged,
        Outcome::Retry {
            delay: Duration::ZERO,
            error: None,
        },
        Outcome::Released,
        Outcome::Dead {
            to: dead(key),
            provenance: Headers::new(),
        },
    ]
}

fn dead(key: &GroupKey) -> StreamName {
    key.stream.dead_letter()
}

/// Once another consumer has claimed a message, and once a claim was settled, its receipt is worth
/// nothing: whatever it is used for, the message stays where it is and no dead letter appears.
pub async fn stale_receipts_do_nothing(engine: Arc<dyn Engine>) {
    let key = group_with(&engine, 1).await;
    let first = claim(&engine, &key, 1, SHORT).await[0].receipt;
    let second = claim_again(&engine, &key, SHORT).await[0].receipt;
    let third = claim_again(&engine, &key, NEVER).await.remove(0);
    assert_eq!(third.message.attempt, 3);
    let invented = Receipt {
        claim: third.receipt.claim + 1,
        ..third.receipt
    };
    for stale in [first, second, invented] {
        for outcome in every_outcome(&key) {
            assert!(!settle(&engine, &key, stale, outcome).await);
        }
        assert!(!extend(&engine, &key, stale).await);
    }
    assert!(claim(&engine, &key, 1, NEVER).await.is_empty());
    let death = Outcome::Dead {
        to: dead(&key),
        provenance: Headers::new(),
    };
    assert!(settle(&engine, &key, third.receipt, death).await);
    for outcome in every_outcome(&key) {
        assert!(!settle(&engine, &key, third.receipt, outcome).await);
    }
    assert_eq!(engine.stats(&dead(&key)).await.unwrap().messages, 1);
    let group = engine.stats(&key.stream).await.unwrap().groups.remove(0);
    assert_eq!((group.pending, group.dead_lettered), (0, 1));
}

/// A claim that has expired is still good for its owner until another consumer takes the message.
pub async fn a_late_receipt_is_obeyed_while_no_other_consumer_has_the_message(
    engine: Arc<dyn Engine>,
) {
    let key = group_with(&engine, 1).await;
    let receipt = claim(&engine, &key, 1, SHORT).await[0].receipt;
    tokio::time::sleep(SHORT * 3).await;
    assert!(settle(&engine, &key, receipt, Outcome::Acknowledged).await);
    assert!(claim(&engine, &key, 1, NEVER).await.is_empty());
}

/// Of a claim that has expired, its owner may still settle what no other has taken since, though
/// others of its messages were taken.
pub async fn a_late_receipt_is_obeyed_after_others_came_again(engine: Arc<dyn Engine>) {
    let key = group_with(&engine, 3).await;
    let late = claim(&engine, &key, 3, SHORT).await;
    let taken = soon(async {
        loop {
            let mut taken = claim(&engine, &key, 1, NEVER).await;
            if let Some(taken) = taken.pop() {
                break taken;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(taken.message.attempt, 2);
    for claimed in late {
        let is_ours = claimed.message.id != taken.message.id;
        let obeyed = settle(&engine, &key, claimed.receipt, Outcome::Acknowledged).await;
        assert_eq!(obeyed, is_ours);
    }
    assert!(claim(&engine, &key, 3, NEVER).await.is_empty());
    assert!(settle(&engine, &key, taken.receipt, Outcome::Acknowledged).await);
    assert_eq!(
        engine.stats(&key.stream).await.unwrap().groups[0].pending,
        0
    );
}

/// A released message comes again at once, before newer ones, as the attempt that it was.
pub async fn released_messages_keep_their_attempt(engine: Arc<dyn Engine>) {
    let key = group_with(&engine, 3).await;
    for attempt in 1..=3 {
        for _ in 0..3 {
            let claimed = claim(&engine, &key, 1, NEVER).await.remove(0);
            assert_eq!(claimed.message.id.as_u64(), 1);
            assert_eq!(claimed.message.attempt, attempt);
            assert!(settle(&engine, &key, claimed.receipt, Outcome::Released).await);
        }
        let claimed = claim(&engine, &key, 1, NEVER).await.remove(0);
        let again = Outcome::Retry {
            delay: Duration::ZERO,
            error: Some(attempt.to_string()),
        };
        assert!(settle(&engine, &key, claimed.receipt, again).await);
    }
    let claimed = claim(&engine, &key, 1, NEVER).await.remove(0);
    assert_eq!(claimed.message.attempt, 4);
    assert_eq!(claimed.last_error.as_deref(), Some("3"));
}

/// Of a claim of many messages only those come again that were not settled.
pub async fn settled_parts_of_a_claim_do_not_come_again(engine: Arc<dyn Engine>) {
    let key = group_with(&engine, 100).await;
    let claimed = claim(&engine, &key, 100, SHORT).await;
    assert_eq!(claimed.len(), 100);
    let settlements: Arc<[Settlement]> = claimed
        .iter()
        .filter(|it| it.message.id.as_u64() % 3 != 0)
        .map(|it| Settlement {
            receipt: it.receipt,
            outcome: Outcome::Acknowledged,
        })
        .collect();
    let obeyed = engine.settle(&key, settlements).await.unwrap();
    assert_eq!(obeyed.len(), 67);
    assert!(obeyed.iter().all(|obeyed| *obeyed));
    let mut again = Vec::new();
    while again.len() < 33 {
        again.extend(claim_again(&engine, &key, NEVER).await);
    }
    let ids: Vec<u64> = again.iter().map(|d| d.message.id.as_u64()).collect();
    assert_eq!(ids, (1..=33).map(|third| third * 3).collect::<Vec<_>>());
    assert!(again.iter().all(|it| it.message.attempt == 2));
}

/// A claim that is extended in time does not expire, on its first attempt or a later one.
pub async fn extending_a_claim_keeps_it(engine: Arc<dyn Engine>) {
    // Its claims begin later and are not extended, so that one that has expired says how late it is.
    let witness = key(&streams(engine.clone()), "s", "witness");
    let key = group_with(&engine, 1).await;
    let earliest = StartFrom::Earliest;
    engine.open_group(&witness, earliest).await.unwrap();
    let visibility = Duration::from_millis(200);
    for attempt in 1..=2 {
        let claimed = claim(&engine, &key, 1, visibility).await.remove(0);
        assert_eq!(claimed.message.attempt, attempt);
        assert!(extend(&engine, &key, claimed.receipt).await);
        claim_again(&engine, &witness, visibility).await;
        let late = claim_again(&engine, &witness, visibility).await.remove(0);
        assert!(claim(&engine, &key, 1, visibility).await.is_empty());
        assert!(settle(&engine, &witness, late.receipt, Outcome::Released).await);
        let again = Outcome::Retry {
            delay: Duration::ZERO,
            error: None,
        };
        assert!(settle(&engine, &key, claimed.receipt, again).await);
    }
}

/// A message that has ended stays so, also while its claim lasts for others.
pub async fn a_settled_message_is_not_extended_with_its_neighbours(engine: Arc<dyn Engine>) {
    let key = group_with(&engine, 2).await;
    let claimed = claim(&engine, &key, 2, NEVER).await;
    let [done, open] = [claimed[0].receipt, claimed[1].receipt];
    assert!(settle(&engine, &key, done, Outcome::Acknowledged).await);
    assert!(!extend(&engine, &key, done).await);
    assert!(extend(&engine, &key, open).await);
    assert!(settle(&engine, &key, open, Outcome::Acknowledged).await);
    assert!(!extend(&engine, &key, open).await);
}

/// Working with a group that was never created, or has been deleted, is an error.
pub async fn a_group_that_is_gone_is_an_error(engine: Arc<dyn Engine>) {
    let key = group_with(&engine, 1).await;
    let receipt = claim(&engine, &key, 1, NEVER).await[0].receipt;
    assert!(engine.delete_group(&key).await.unwrap());
    let claimed = engine.claim(&some_consumer(&key), 1, NEVER.into()).await;
    assert!(matches!(claimed.unwrap_err(), Error::UnknownGroup));
    let extended = engine.extend(&key, Arc::from([receipt]), NEVER).await;
    assert!(matches!(extended.unwrap_err(), Error::UnknownGroup));
    let settlement = Settlement {
        receipt,
        outcome: Outcome::Acknowledged,
    };
    let settled = engine.settle(&key, Arc::from([settlement])).await;
    assert!(matches!(settled.unwrap_err(), Error::UnknownGroup));
    until(|| async { engine.stats(&key.stream).await.unwrap().groups.is_empty() }).await;
}
