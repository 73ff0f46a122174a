//! Messages that are missing: removed by hand, or trimmed while they were claimed. They are skipped, and
//! counted as lost, once.

use std::time::Duration;

use tidings_stream::NewMessage;
use tidings_stream::StartFrom;
use tidings_stream::engine::{Claimed, ConsumerKey, Engine, GroupKey, Outcome, Settlement};
use tidings_stream::postgres::PostgresEngine;

use crate::database::{NEVER, Schema, key, numbered};

/// An engine with these messages in a stream.
async fn engine(schema: &Schema, key: &GroupKey, messages: Vec<NewMessage>) -> PostgresEngine {
    let engine = schema.engine().await;
    engine.open_group(key, StartFrom::Earliest).await.unwrap();
    engine.append(&key.stream, messages, None).await.unwrap();
    engine
}

async fn claim(engine: &PostgresEngine, key: &GroupKey, max: usize) -> Claimed {
    let consumer = ConsumerKey {
        group: key.clone(),
        consumer: "c".into(),
    };
    engine.claim(&consumer, max, NEVER.into()).await.unwrap()
}

fn ids(claimed: &Claimed) -> Vec<u64> {
    let deliveries = claimed.messages.iter();
    deliveries.map(|it| it.message.id.as_u64()).collect()
}

async fn settle(engine: &PostgresEngine, key: &GroupKey, claimed: &Claimed, outcome: &Outcome) {
    let settlement = |receipt| Settlement {
        receipt,
        outcome: outcome.clone(),
    };
    let receipts = claimed.messages.iter().map(|it| it.receipt);
    let settled = engine.settle(key, receipts.map(settlement).collect()).await;
    assert!(settled.unwrap().into_iter().all(|is_obeyed| is_obeyed));
}

/// What is pending in a group, and what it has lost.
async fn figures(engine: &PostgresEngine, key: &GroupKey) -> (u64, u64) {
    let groups = engine.stats(&key.stream).await.unwrap().groups;
    let group = groups.into_iter().find(|it| it.name == key.group).unwrap();
    assert_eq!(group.lag, 0);
    (group.pending, group.lost_to_trim)
}

async fn remove(schema: &Schema, numbers: &str) {
    let remove = format!("DELETE FROM tidings_stream_message WHERE number IN ({numbers})");
    schema.execute(&remove).await;
}

#[tokio::test]
async fn regression_holes_are_skipped_and_counted() {
    let schema = Schema::create().await;
    let key = key("s", "g");
    let engine = engine(&schema, &key, numbered(10)).await;
    remove(&schema, "1, 2, 3, 6, 7, 10").await;
    let (mut claimed, mut dead) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        let found = claim(&engine, &key, 2).await;
        for delivery in &found.messages {
            let id = delivery.message.id.as_u64();
            let payload = &delivery.message.payload;
            assert_eq!(payload, &id.to_string(), "the payload of its id");
        }
        claimed.extend(ids(&found));
        dead.push(found);
    }
    assert_eq!(claimed, [4, 5, 8, 9]);
    // The newest one was never there for the group.
    assert_eq!(figures(&engine, &key).await, (4, 5));

    let to = key.stream.dead_letter();
    let provenance = tidings_stream::Headers::new();
    let outcome = Outcome::Dead { to, provenance };
    for found in &dead {
        settle(&engine, &key, found, &outcome).await;
    }
    let letters = engine.read(&key.stream.dead_letter(), None, 10).await;
    let letters: Vec<_> = letters.unwrap().into_iter().map(|it| it.payload).collect();
    assert_eq!(letters, ["4", "5", "8", "9"]);
}

/// Whether the content comes with the claim or is read after it. A claim that was for as many as it could be
/// is followed by another at once.
#[tokio::test]
async fn regression_a_claim_that_lost_a_message_is_followed_by_another() {
    for bytes in [1, 10_000] {
        let schema = Schema::create().await;
        let key = key("s", "g");
        let messages = vec![NewMessage::new(vec![0; bytes]); 10];
        let engine = engine(&schema, &key, messages).await;
        remove(&schema, "5").await;
        let claimed = claim(&engine, &key, 10).await;
        assert_eq!(ids(&claimed), [1, 2, 3, 4, 6, 7, 8, 9, 10]);
        assert_eq!(claimed.next_due, Some(Duration::ZERO));
        assert_eq!(figures(&engine, &key).await, (9, 1));
        // What was lost does not come again.
        settle(&engine, &key, &claimed, &Outcome::Released).await;
        assert_eq!(claim(&engine, &key, 10).await.messages.len(), 9);
        assert_eq!(figures(&engine, &key).await, (9, 1));
    }
}

#[tokio::test]
async fn what_is_removed_before_it_comes_again_is_skipped_and_counted() {
    let schema = Schema::create().await;
    let key = key("s", "g");
    let engine = engine(&schema, &key, numbered(3)).await;
    let claimed = claim(&engine, &key, 3).await;
    settle(&engine, &key, &claimed, &Outcome::Released).await;
    remove(&schema, "2").await;
    let claimed = claim(&engine, &key, 3).await;
    assert_eq!(ids(&claimed), [1, 3]);
    assert_eq!(claimed.next_due, Some(Duration::ZERO));
    assert_eq!(figures(&engine, &key).await, (2, 1));
    settle(&engine, &key, &claimed, &Outcome::Acknowledged).await;
    assert!(claim(&engine, &key, 3).await.messages.is_empty());
    assert_eq!(figures(&engine, &key).await, (0, 1));
}

/// A claim and the read of its content are two statements.
#[tokio::test]
async fn what_is_trimmed_between_a_claim_and_its_read_is_counted() {
    let schema = Schema::create().await;
    let (new, again) = (key("s", "new"), key("s", "again"));
    let messages = vec![NewMessage::new(vec![0; 20_000]); 3];
    let engine = engine(&schema, &again, messages).await;
    engine.open_group(&new, StartFrom::Earliest).await.unwrap();
    let claimed = claim(&engine, &again, 3).await;
    settle(&engine, &again, &claimed, &Outcome::Released).await;

    let client = schema.client().await;
    let definition = "SELECT pg_get_functiondef('tidings_stream_claimed'::regproc)";
    let row = client.query_one(definition, &[]).await.unwrap();
    let definition: String = row.get(0);
    let (all, without) = ("WHERE m.", "WHERE m.number < 3 AND m.");
    assert_eq!(definition.matches(all).count(), 2, "{definition}");
    let without = definition.replace(all, without);
    client.batch_execute(&without).await.unwrap();
    for group in [&new, &again] {
        let claimed = claim(&engine, group, 3).await;
        assert_eq!(ids(&claimed), [1, 2]);
        assert_eq!(claimed.next_due, Some(Duration::ZERO));
        assert_eq!(figures(&engine, group).await, (2, 1));
    }
}
