//! The order in which statements lock rows, whatever the alphabet of the database is: with two orders each of
//! two statements could wait for the other.

use std::sync::Arc;
use std::time::Duration;

use tidings_stream::engine::{ConsumerKey, Engine, GroupKey, Outcome, Settlement};
use tidings_stream::postgres::publish_in;
use tidings_stream::postgres::tokio_postgres::Client;
use tidings_stream::{Headers, MessageId, NewMessage, StartFrom};

use crate::database::{NEVER, Schema, connect, key, name, numbered, soon, until};

/// A database whose alphabet is English: `a` is before `B` there, and as bytes behind it.
struct English {
    admin: Client,
    name: String,
    url: String,
}

impl English {
    async fn create() -> Self {
        let server = std::env::var("DATABASE_URL").unwrap();
        let admin = connect(&server).await;
        let name = format!("tidings_{:016x}", fastrand::u64(..));
        let create = format!(
            "CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
        );
        admin.batch_execute(&create).await.unwrap();
        let (server, _) = server.rsplit_once('/').unwrap();
        let url = format!("{server}/{name}");
        Self { admin, name, url }
    }

    /// Removes it. Nothing may use it any more.
    async fn remove(self) {
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        self.admin.batch_execute(&drop).await.unwrap();
    }
}

/// Whether a row could be locked at this moment.
async fn is_free(client: &Client, table: &str, condition: &str) -> bool {
    let lock = format!("SELECT FROM {table} WHERE {condition} FOR UPDATE SKIP LOCKED");
    client.execute(&lock, &[]).await.unwrap() == 1
}

/// Dead letters lock their streams in the order in which the outbox does.
#[tokio::test]
async fn regression_streams_are_locked_in_one_order() {
    let database = English::create().await;
    let schema = Schema::create_on(&database.url).await;
    let engine = Arc::new(schema.engine().await);
    let key = key("s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    for (stream, count) in [("s", 2), ("audit", 1), ("Orders", 1)] {
        let stream = name(stream);
        let appending = engine.append(&stream, numbered(count), None);
        appending.await.unwrap();
    }
    let consumer = ConsumerKey {
        group: key.clone(),
        consumer: "c".into(),
    };
    let claimed = engine
        .claim(&consumer, 2, NEVER.into())
        .await
        .unwrap()
        .messages;
    let settlements = claimed.iter().zip(["audit", "Orders"]);
    let settlements: Arc<[Settlement]> = settlements
        .map(|(delivery, target)| Settlement {
            receipt: delivery.receipt,
            outcome: Outcome::Dead {
                to: name(target),
                provenance: Headers::new(),
            },
        })
        .collect();

    let mut client = schema.client().await;
    let holding = client.transaction().await.unwrap();
    let lock = "SELECT FROM tidings_stream WHERE name = 'app.default.audit' FOR UPDATE";
    holding.execute(lock, &[]).await.unwrap();
    let settling = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.settle(&key, settlements).await }
    });
    let watching = schema.client().await;
    let condition = "name = 'app.default.Orders'";
    until(async || !is_free(&watching, "tidings_stream", condition).await).await;
    holding.rollback().await.unwrap();
    assert_eq!(settling.await.unwrap().unwrap(), [true, true]);

    drop((engine, client, watching, schema));
    database.remove().await;
}

/// Processes check their members in and out, in any order.
#[tokio::test]
async fn regression_members_are_locked_in_one_order() {
    let database = English::create().await;
    let schema = Schema::create_on(&database.url).await;
    let engine = Arc::new(schema.engine().await);
    let key = key("s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    let mut client = schema.client().await;
    let watching = schema.client().await;
    for ttl in [NEVER, Duration::ZERO] {
        for names in [["a", "B"], ["B", "a"]] {
            let members = names.map(|name| member(&key, name));
            engine
                .check_in(members.clone().into(), NEVER)
                .await
                .unwrap();
            let holding = client.transaction().await.unwrap();
            let lock = "SELECT FROM tidings_stream_member WHERE consumer = 'B' FOR UPDATE";
            assert_eq!(holding.execute(lock, &[]).await.unwrap(), 1);
            let checking = tokio::spawn({
                let engine = Arc::clone(&engine);
                async move { engine.check_in(members.into(), ttl).await }
            });
            let waiting = "SELECT FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'";
            until(async || watching.execute(waiting, &[]).await.unwrap() == 1).await;
            let is_free = is_free(&watching, "tidings_stream_member", "consumer = 'a'").await;
            assert!(is_free, "{names:?} for {ttl:?}");
            holding.rollback().await.unwrap();
            checking.await.unwrap().unwrap();
        }
    }
    drop((engine, client, watching, schema));
    database.remove().await;
}

/// Members that have gone are forgotten, except those that are just checking in: that waits for no lock.
#[tokio::test]
async fn regression_forgetting_members_waits_for_no_other_process() {
    let schema = Schema::create().await;
    let engine = schema.engine().await;
    let key = key("s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    let members = ["a", "b", "c"].map(|name| member(&key, name));
    engine.check_in(members.into(), NEVER).await.unwrap();
    let expire = "UPDATE tidings_stream_member SET expires = 1 WHERE consumer <> 'c'";
    let mut client = schema.client().await;
    client.execute(expire, &[]).await.unwrap();
    let holding = client.transaction().await.unwrap();
    let lock = "SELECT FROM tidings_stream_member WHERE consumer = 'b' FOR UPDATE";
    assert_eq!(holding.execute(lock, &[]).await.unwrap(), 1);
    engine.trim().await.unwrap();
    let left = "SELECT consumer FROM tidings_stream_member ORDER BY 1";
    let left = schema.client().await.query(left, &[]).await.unwrap();
    let left: Vec<String> = left.iter().map(|row| row.get(0)).collect();
    assert_eq!(left, ["b", "c"]);
    holding.rollback().await.unwrap();
}

/// Locks groups, as transactions of handlers do that have settled a message and do not commit.
const HOLD: &str = "SELECT FROM tidings_stream_group WHERE name LIKE 'held%' FOR NO KEY UPDATE";

/// How many statements wait for a lock in the database.
const WAITING: &str = "SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'";

/// There are fewer connections than calls that wait for one group, and than groups that calls wait for.
#[tokio::test]
async fn regression_calls_about_a_held_group_delay_no_other_group() {
    let schema = Schema::create().await;
    let engine = Arc::new(schema.engine().await);
    let (held, free) = (key("s", "held"), key("t", "free"));
    let others: Vec<GroupKey> = (0..8).map(|n| key("s", &format!("held-{n}"))).collect();
    for key in others.iter().chain([&held, &free]) {
        engine.open_group(key, StartFrom::Earliest).await.unwrap();
    }
    for key in [&held, &free] {
        engine.append(&key.stream, numbered(9), None).await.unwrap();
    }
    let claimed = engine.claim(&member(&held, "c"), 8, NEVER.into()).await;
    let claimed = claimed.unwrap().messages;
    let mut client = schema.client().await;
    let holding = client.transaction().await.unwrap();
    holding.execute(HOLD, &[]).await.unwrap();

    let mut waiting = Vec::new();
    for delivery in &claimed {
        let (engine, held, receipt) = (Arc::clone(&engine), held.clone(), delivery.receipt);
        waiting.push(tokio::spawn(async move {
            let extended = engine.extend(&held, [receipt].into(), NEVER).await.unwrap();
            let outcome = Outcome::Acknowledged;
            let settled = engine.settle(&held, [Settlement { receipt, outcome }].into());
            assert_eq!([extended, settled.await.unwrap()], [[true], [true]]);
        }));
    }
    for group in others.iter().chain([&held]) {
        let (engine, consumer) = (Arc::clone(&engine), member(group, "c"));
        waiting.push(tokio::spawn(async move {
            let claimed = engine.claim(&consumer, 1, NEVER.into()).await.unwrap();
            assert_eq!(claimed.messages.len(), 1);
        }));
    }
    let watching = schema.client().await;
    until(async || watching.execute(WAITING, &[]).await.unwrap() > 0).await;
    // They wait for as long as the transaction lasts.
    for _ in 0..8 {
        let claimed = engine.claim(&member(&free, "c"), 1, NEVER.into()).await;
        let receipt = claimed.unwrap().messages[0].receipt;
        let outcome = Outcome::Acknowledged;
        let settling = engine.settle(&free, [Settlement { receipt, outcome }].into());
        assert_eq!(settling.await.unwrap(), [true]);
    }
    assert!(waiting.iter().all(|call| !call.is_finished()));

    holding.rollback().await.unwrap();
    for call in waiting {
        soon(call).await.unwrap();
    }
}

/// What locks a stream and then waits for a group lets publishers go on meanwhile, and the outbox.
#[tokio::test]
async fn regression_what_waits_for_a_held_group_holds_no_stream() {
    let schema = Schema::create().await;
    let engine = Arc::new(schema.engine().await);
    let key = key("s", "held");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    engine.append(&key.stream, numbered(9), None).await.unwrap();
    let mut client = schema.client().await;
    let holding = client.transaction().await.unwrap();
    holding.execute(HOLD, &[]).await.unwrap();

    let mut waiting = Vec::new();
    for number in 1..=8 {
        let id = MessageId::from_u64(number);
        let (deleting, stream) = (Arc::clone(&engine), key.stream.clone());
        waiting.push(tokio::spawn(async move {
            assert!(deleting.delete_message(&stream, id).await.unwrap());
        }));
        let (seeking, key) = (Arc::clone(&engine), key.clone());
        waiting.push(tokio::spawn(async move {
            seeking.seek(&key, StartFrom::Latest).await.unwrap();
        }));
    }
    let watching = schema.client().await;
    until(async || watching.execute(WAITING, &[]).await.unwrap() > 0).await;
    let mut publisher = schema.client().await;
    for count in 0..8 {
        engine.append(&key.stream, numbered(1), None).await.unwrap();
        let transaction = publisher.transaction().await.unwrap();
        let message = [NewMessage::new("")];
        publish_in(&transaction, &key.stream, &message)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        engine.wake(&key.stream);
        let numbers = "SELECT FROM tidings_stream_message";
        let expected = 9 + 2 * (count + 1);
        until(async || watching.execute(numbers, &[]).await.unwrap() == expected).await;
    }
    assert!(waiting.iter().all(|call| !call.is_finished()));

    holding.rollback().await.unwrap();
    for call in waiting {
        soon(call).await.unwrap();
    }
}

fn member(group: &GroupKey, name: &str) -> ConsumerKey {
    ConsumerKey {
        group: group.clone(),
        consumer: name.into(),
    }
}
