//! That the length of a history costs nothing, counted in the steps of SQLite's machine, and that
//! streams survive what happens beside them.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::Connection;

use super::{append, claim, content, delete, group, pending, schema, settle};
use crate::engine::{ConsumerKey, GroupKey, Outcome, Settlement};
use crate::{GroupName, Headers, NewMessage, Retention, StartFrom, StreamName};

const VISIBILITY: Duration = Duration::from_secs(60);

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
            append::append_and_trim(transaction, &key.stream, &messages, Some(retention)).unwrap();
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
            let claimed = claim::claim(transaction, &consumer, max, VISIBILITY.into()).unwrap();
            found = claimed.messages.len();
            let settlements: Vec<Settlement> = claimed
                .messages
                .iter()
                .map(|it| Settlement {
                    receipt: it.receipt,
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
        max_age: Some(Duration::from_secs(3600)),
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

/// The leases of a group are found by their deadlines and their numbers, however many are open.
#[test]
fn regression_many_open_claims_cost_as_much_as_few() {
    let bounded = Retention {
        max_len: NonZeroU64::new(10),
        ..Retention::default()
    };
    let mut database = Counted::new();
    let mut costs = Vec::new();
    for open in [10, 2000] {
        database.publish(open, Retention::default());
        let key = database.key.clone();
        let consumer = ConsumerKey {
            group: key.clone(),
            consumer: "c".into(),
        };
        let claim = |transaction: &rusqlite::Transaction<'_>| {
            let claimed = claim::claim(transaction, &consumer, 1, VISIBILITY.into()).unwrap();
            assert_eq!(claimed.messages.len(), 1);
        };
        for _ in 0..open {
            database.steps_of(claim);
        }
        // One by one: a claim, and the publish that asks which is the oldest that is needed.
        let publish = database.publish(1, bounded);
        costs.push((publish, database.steps_of(claim)));
    }
    let [few, many] = costs[..] else {
        panic!("there are two rounds");
    };
    assert!(
        many.0 < few.0 * 2 && many.1 < few.1 * 2,
        "{few:?} grew to {many:?}"
    );
}

/// What has expired and is kept for a group is not gone through with each publish.
#[test]
fn regression_what_a_slow_group_keeps_costs_a_publisher_nothing() {
    let aged = Retention {
        max_age: Some(Duration::from_millis(1)),
        ..Retention::default()
    };
    let mut database = Counted::new();
    let mut costs = Vec::new();
    for more in [10, 20_000] {
        database.publish(more, Retention::default());
        let old = "UPDATE stream_message SET created_at = created_at - 60000";
        database.connection.execute(old, []).unwrap();
        costs.push(database.publish(1, aged));
    }
    // The look for the first young message goes through a chunk at most.
    let chunk = u64::try_from(super::trim::CHUNK).unwrap();
    assert!(costs[1] < costs[0] + 20 * chunk, "{costs:?}");
}

/// The id of a stream that is gone is given to the next one. A loop that still removes the old stream
/// must not touch the new one.
#[test]
fn regression_deleting_a_stream_leaves_the_next_one_alone() {
    let mut database = Counted::new();
    let [old, new] = ["old", "new"].map(|name| StreamName::new("app", "default", name).unwrap());
    let transaction = database.connection.transaction().unwrap();
    let messages = vec![NewMessage::new("body"); 3];
    append::append(&transaction, &old, &messages).unwrap();
    let id = delete::hide(&transaction, &old).unwrap().unwrap();
    while !delete::remove_chunk(&transaction, id).unwrap() {}
    let appended = append::append(&transaction, &new, &messages).unwrap();
    assert_eq!(appended.row.stream_id, id, "the id is used again");
    assert!(delete::remove_chunk(&transaction, id).unwrap());
    let count = "SELECT count(*) FROM stream_message WHERE key >> 40 = ?1";
    let left: i64 = transaction
        .query_row(count, [id], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 3);
    let streams = "SELECT count(*) FROM stream WHERE stream_id = ?1";
    let left: i64 = transaction
        .query_row(streams, [id], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 1);
}

/// Messages that were removed by hand are counted as lost, and stop no group.
#[test]
fn regression_holes_are_skipped_and_counted() {
    let mut database = Counted::new();
    database.publish(10, Retention::default());
    let key = database.key.clone();
    let consumer = ConsumerKey {
        group: key.clone(),
        consumer: "c".into(),
    };
    let transaction = database.connection.transaction().unwrap();
    let remove = "DELETE FROM stream_message WHERE key & 1099511627775 IN (1, 2, 5, 6, 10)";
    assert_eq!(transaction.execute(remove, []).unwrap(), 5);
    let mut claimed = Vec::new();
    for _ in 0..6 {
        let found = claim::claim(&transaction, &consumer, 2, VISIBILITY.into()).unwrap();
        claimed.extend(found.messages.iter().map(|d| d.message.id.as_u64()));
    }
    assert_eq!(claimed, [3, 4, 7, 8, 9]);
    let number = |query| -> i64 { transaction.query_row(query, [], |row| row.get(0)).unwrap() };
    let lost = "SELECT lost_to_trim FROM stream_group";
    assert_eq!(number(lost), 5);
    assert_eq!(number("SELECT count(*) FROM stream_lease"), 3);
    let pending = pending::page(&transaction, &key, None, 10).unwrap();
    assert!(pending.iter().map(|it| it.id.as_u64()).eq(claimed));

    // What was skipped is not met and counted again when the claims expire, and what is removed before
    // that is.
    let expire = "UPDATE stream_lease SET deadline = 0";
    assert_eq!(transaction.execute(expire, []).unwrap(), 3);
    let remove = "DELETE FROM stream_message WHERE key & 1099511627775 = 8";
    assert_eq!(transaction.execute(remove, []).unwrap(), 1);
    let found = claim::claim(&transaction, &consumer, 10, VISIBILITY.into()).unwrap();
    let again: Vec<_> = (found.messages.iter())
        .map(|it| it.message.id.as_u64())
        .collect();
    assert_eq!(again, [3, 4, 7, 9]);
    assert_eq!(found.next_due, Some(Duration::ZERO));
    assert_eq!(number(lost), 6);
}

/// What a page has in memory does not grow with the stream, however small its messages are.
#[test]
fn a_page_has_4096_messages_at_most() {
    let mut database = Counted::new();
    database.publish(5000, Retention::default());
    let Counted {
        connection, key, ..
    } = &database;
    let page = |after| content::page(connection, &key.stream, after, 10_000).unwrap();
    let first = page(None);
    assert_eq!(first.len(), 4096);
    let rest = page(first.last().map(|it| it.id));
    assert_eq!(rest.len(), 5000 - 4096);
}
