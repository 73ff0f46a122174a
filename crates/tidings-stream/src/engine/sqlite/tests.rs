//! That the length of a history costs nothing, counted in the steps of SQLite's machine.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;

use super::{append, claim, group, schema, settle};
use crate::engine::{ConsumerKey, GroupKey, Outcome, Settlement};
use crate::{GroupName, Headers, NewMessage, Retention, StartFrom, StreamName};

const VISIBILITY: i64 = 60_000;

/// A database that counts its steps, with a stream and a group.
struct Counted {
    connection: Connection,
    steps: Arc<AtomicU64>,
    key: GroupKey,
}

impl Counted {
    fn new() -> Self {
        let mut connection = Connection::open_in_memory().unwrap();
        for step in schema::STEPS {
            connection.execute_batch(step).unwrap();
        }
        let steps = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&steps);
        let count = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            false
        };
        connection.progress_handler(1, Some(count)).unwrap();
        let key = GroupKey {
            stream: StreamName::new("app", "default", "s").unwrap(),
            group: GroupName::new("g").unwrap(),
        };
        let transaction = connection.transaction().unwrap();
        group::open(&transaction, &key, StartFrom::Earliest).unwrap();
        transaction.commit().unwrap();
        Self {
            connection,
            steps,
            key,
        }
    }

    fn publish(&mut self, count: usize, retention: Retention) -> u64 {
        let key = self.key.clone();
        self.steps_of(|transaction| {
            let messages = vec![NewMessage::new("body"); count];
            append::append_and_trim(transaction, &key.stream, &messages, retention).unwrap();
        })
    }

    /// Claims and settles, and counts the steps of both.
    fn work(&mut self, max: usize, outcome: &Outcome) -> (usize, u64) {
        let key = self.key.clone();
        let consumer = ConsumerKey {
            group: key.clone(),
            consumer: "c".into(),
        };
        let mut found = 0;
        let steps = self.steps_of(|transaction| {
            let claimed = claim::claim(transaction, &consumer, max, VISIBILITY).unwrap();
            found = claimed.deliveries.len();
            let settlements: Vec<Settlement> = claimed
                .deliveries
                .iter()
                .map(|delivery| Settlement {
                    receipt: delivery.receipt,
                    outcome: outcome.clone(),
                })
                .collect();
            settle::settle(transaction, &key, &settlements).unwrap();
        });
        (found, steps)
    }

    fn steps_of(&mut self, work: impl FnOnce(&rusqlite::Transaction<'_>)) -> u64 {
        let transaction = self.connection.transaction().unwrap();
        self.steps.store(0, Ordering::Relaxed);
        work(&transaction);
        let steps = self.steps.load(Ordering::Relaxed);
        transaction.commit().unwrap();
        steps
    }
}

#[test]
fn a_long_history_costs_as_much_as_a_short_one() {
    let dead = Outcome::Dead {
        to: StreamName::new("app", "default", "dead").unwrap(),
        provenance: Headers::new(),
    };
    let unbounded = Retention::default();
    let bounded = Retention {
        max_len: NonZeroU64::new(1_000_000),
        max_age: Some(std::time::Duration::from_secs(3600)),
        trim_pending: false,
    };
    let mut database = Counted::new();
    // Both rounds find the stream of the dead letters in place.
    database.publish(1, unbounded);
    database.work(1, &dead);
    let mut costs = Vec::new();
    for history in [1_000, 50_000] {
        database.publish(history, unbounded);
        while database.work(512, &Outcome::Acknowledged).0 > 0 {}
        let publish = database.publish(20, unbounded);
        let publish_bounded = database.publish(1, bounded);
        let (found, acknowledge) = database.work(10, &Outcome::Acknowledged);
        let (_, release) = database.work(5, &Outcome::Released);
        let (_, again) = database.work(5, &Outcome::Acknowledged);
        let (_, bury) = database.work(5, &dead);
        assert_eq!(found, 10);
        while database.work(512, &Outcome::Acknowledged).0 > 0 {}
        let (_, idle) = database.work(10, &Outcome::Acknowledged);
        costs.push([
            publish,
            publish_bounded,
            acknowledge,
            release,
            again,
            bury,
            idle,
        ]);
    }
    assert_eq!(costs[0], costs[1]);
}
