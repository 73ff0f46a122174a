//! What only the PostgreSQL engine promises.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tidings_stream::engine::{ClaimOptions, ConsumerKey, Engine};
use tidings_stream::postgres::{
    Config, PostgresEngine, PostgresOptions, notify_in, publish_in, tokio_postgres,
};
use tidings_stream::{Consumer, Error, NewMessage, ORDERING_KEY, Retention, StartFrom, Streams};

use crate::database::{
    NEVER, Schema, connect, from_start, key, name, next, numbered, recorder, until,
};

/// Whatever headers there are, the database finds the ordering key that their JSON has, as it stands there.
#[tokio::test]
async fn the_ordering_key_is_found_among_any_headers() {
    let schema = Schema::create().await;
    // It makes the functions.
    drop(schema.engine().await);
    let text = r#"[a"\\,:{}\x00\n\u{1f600}]{0,5}|ordering-key|"ordering-key":"a"|a,?"ordering-key"#;
    let text = || proptest::string::string_regex(text).unwrap();
    let any = prop::collection::btree_map(text(), text(), 0..6);
    let any = prop::collection::vec(any, 1000);
    let sample = any.new_tree(&mut TestRunner::default()).unwrap().current();
    let stored: Vec<Vec<u8>> = sample
        .iter()
        .map(|it| serde_json::to_vec(it).unwrap())
        .collect();
    let find = "SELECT array_agg(tidings_stream_ordering_key(headers) ORDER BY place)
        FROM unnest($1::bytea[]) WITH ORDINALITY AS stored (headers, place)";
    let found = schema
        .client()
        .await
        .query_one(find, &[&stored])
        .await
        .unwrap();
    let found: Vec<Option<Vec<u8>>> = found.get(0);
    let keys = sample.iter().map(|headers| headers.get(ORDERING_KEY));
    let keys: Vec<_> = keys
        .map(|key| Some(serde_json::to_vec(key?).unwrap()))
        .collect();
    assert!(keys.iter().flatten().count() > 100);
    assert_eq!(found, keys);
}

#[tokio::test]
async fn a_message_of_the_callers_transaction_exists_once_it_commits() {
    let schema = Schema::create().await;
    let streams = schema.streams().await;
    let (recorder, mut seen) = recorder();
    let consumer = streams
        .subscribe("orders", "group", from_start(), recorder)
        .await
        .unwrap();
    let orders = name("orders");
    let mut client = schema.client().await;

    let transaction = client.transaction().await.unwrap();
    publish_in(&transaction, &orders, &[NewMessage::new("never")])
        .await
        .unwrap();
    transaction.rollback().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let keyed = || NewMessage::new("once").with_publish_key("k", NEVER);
    let and = NewMessage::new("and").with_header("Ünï\0", "\0\u{1f600}");
    publish_in(&transaction, &orders, &[keyed(), and.clone()])
        .await
        .unwrap();
    publish_in(&transaction, &orders, &[keyed(), NewMessage::new("last")])
        .await
        .unwrap();
    publish_in(&transaction, &orders, &[]).await.unwrap();
    transaction.commit().await.unwrap();
    streams.wake(&orders);

    for (id, payload) in [(1, "once"), (2, "and"), (3, "last")] {
        let message = next(&mut seen).await.unwrap();
        assert_eq!(
            (message.id.as_u64(), &*message.payload),
            (id, payload.as_bytes())
        );
        if id == 2 {
            assert_eq!(&message.headers, &and.headers);
        }
    }
    consumer.close().await;
    assert!(next(&mut seen).await.is_none());
}

#[tokio::test]
async fn publishing_in_a_transaction_refuses_what_is_too_large_and_leaves_retention_alone() {
    let schema = Schema::create().await;
    let streams = schema.streams().await;
    let bounded = Retention::default().with_max_len(2);
    streams.set_retention("s", bounded).await.unwrap();
    let client = schema.client().await;
    let large = NewMessage::new(vec![0; tidings_stream::MAX_PAYLOAD_BYTES + 1]);
    let refused = publish_in(&client, &name("s"), &[large]).await.unwrap_err();
    assert!(matches!(refused, Error::TooLarge { .. }));
    // A client without a transaction has one per statement.
    publish_in(&client, &name("s"), &numbered(3)).await.unwrap();
    until(async || {
        let stats = streams.stats("s").await.unwrap();
        stats.newest.is_some_and(|newest| newest.as_u64() == 3) && stats.messages == 2
    })
    .await;
}

/// Nothing else says that messages of transactions wait: no consumer has them, and no call fails.
#[tokio::test]
async fn regression_what_waits_in_the_outbox_is_behind_for_its_groups_as_well() {
    let schema = Schema::create().await;
    let streams = schema.streams().await;
    let (recorder, _seen) = recorder();
    let group = streams.subscribe("s", "g", from_start(), recorder);
    group.await.unwrap().close().await;
    streams
        .publish("s", NewMessage::new("sequenced"))
        .await
        .unwrap();
    let sequencing = schema.client().await;
    let hold = "BEGIN; SELECT FROM tidings_stream_sequencer FOR UPDATE";
    sequencing.batch_execute(hold).await.unwrap();
    let client = schema.client().await;
    publish_in(&client, &name("other"), &numbered(100))
        .await
        .unwrap();
    publish_in(&client, &name("s"), &numbered(3)).await.unwrap();
    let waits = streams.stats("s").await.unwrap();
    assert_eq!((waits.messages, waits.groups[0].lag), (1, 4));
    // Its own time, also when nothing waits in the stream.
    let age = "UPDATE tidings_stream_outbox SET created_at = created_at - 3600000";
    client.batch_execute(age).await.unwrap();
    let waits = streams.stats("s").await.unwrap();
    assert!(waits.groups[0].lag_time >= Some(Duration::from_secs(3600)));
    sequencing.batch_execute("ROLLBACK").await.unwrap();
    until(async || {
        let stats = streams.stats("s").await.unwrap();
        (stats.messages, stats.groups[0].lag) == (4, 4)
    })
    .await;
}

/// Faults of the reference: what commits late is skipped for ever, or an open transaction stalls
/// every reader.
#[tokio::test]
async fn regression_a_transaction_that_stays_open_stalls_no_other_and_loses_nothing() {
    let schema = Schema::create().await;
    let streams = schema.streams().await;
    let (recorder, mut seen) = recorder();
    let consumer = streams
        .subscribe("s", "g", from_start(), recorder)
        .await
        .unwrap();
    let mut clients = [schema.client().await, schema.client().await];
    let [first, second] = &mut clients;
    let early = first.transaction().await.unwrap();
    publish_in(&early, &name("s"), &[NewMessage::new("early")])
        .await
        .unwrap();
    let unrelated = schema.client().await;
    unrelated
        .batch_execute("BEGIN; CREATE TABLE other (n int)")
        .await
        .unwrap();

    for number in 1..=20 {
        let id = streams
            .publish("s", NewMessage::new("between"))
            .await
            .unwrap();
        assert_eq!(id.as_u64(), number);
        assert_eq!(next(&mut seen).await.unwrap().id, id);
    }
    let late = second.transaction().await.unwrap();
    publish_in(&late, &name("s"), &[NewMessage::new("late")])
        .await
        .unwrap();
    late.commit().await.unwrap();
    assert_eq!(next(&mut seen).await.unwrap().payload, "late");
    early.commit().await.unwrap();
    let message = next(&mut seen).await.unwrap();
    assert_eq!(
        (message.id.as_u64(), &*message.payload),
        (22, &b"early"[..])
    );
    unrelated.batch_execute("ROLLBACK").await.unwrap();
    consumer.close().await;
    assert!(next(&mut seen).await.is_none());
}

/// The sequencer is stopped in the middle, by a lock, and its session is killed there.
#[tokio::test]
async fn messages_of_a_transaction_survive_a_killed_sequencer_once() {
    let schema = Schema::create().await;
    let streams = schema.streams().await;
    streams.publish("s", NewMessage::new("0")).await.unwrap();
    let (mut blocker, other) = (schema.client().await, schema.client().await);
    let lock = "SELECT FROM tidings_stream FOR UPDATE";
    let pid = blocker
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap();
    let pid: i32 = pid.get(0);
    for round in 1..=3_u64 {
        let blocking = blocker.transaction().await.unwrap();
        blocking.batch_execute(lock).await.unwrap();
        publish_in(&other, &name("s"), &numbered(10)).await.unwrap();
        let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND query LIKE '%tidings_stream_sequence%'
                AND pg_blocking_pids(pid) @> ARRAY[$1::integer]";
        let killed = async || {
            other
                .query_one(kill, &[&pid])
                .await
                .unwrap()
                .get::<_, i64>(0)
        };
        until(async || killed().await == 1).await;
        blocking.commit().await.unwrap();
        until(async || streams.stats("s").await.unwrap().messages > round * 10).await;
    }
    let messages = streams.read("s", None, 100).await.unwrap();
    let numbers: Vec<_> = messages[1..]
        .iter()
        .map(|message| message.payload.clone())
        .collect();
    let expected = (0..3)
        .flat_map(|_| numbered(10))
        .map(|message| message.payload.clone());
    assert!(numbers.into_iter().eq(expected));
}

#[tokio::test]
async fn engines_wake_each_other_with_polling_off() {
    let schema = Schema::create().await;
    let (here, there) = (schema.streams().await, schema.streams().await);
    let (recorder, mut seen) = recorder();
    let mut consumers = Vec::new();
    for group in ["a", "B", "ü"] {
        let consumer = here.subscribe("Upper.Case", group, from_start(), recorder.clone());
        consumers.push(consumer.await.unwrap());
    }
    for number in 1..=30_u64 {
        there
            .publish("Upper.Case", NewMessage::new(""))
            .await
            .unwrap();
        for _ in 0..3 {
            assert_eq!(next(&mut seen).await.unwrap().id.as_u64(), number);
        }
    }
    join_all(consumers.iter().map(Consumer::close)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn engines_share_a_group_without_delivering_twice() {
    const MESSAGES: u64 = 2000;
    let schema = Schema::create().await;
    let (first, second) = (schema.streams().await, schema.streams().await);
    let (recorder, mut seen) = recorder();
    let options = from_start().with_concurrency(8);
    let mut consumers = Vec::new();
    for streams in [&first, &second, &first, &second] {
        let consumer = streams.subscribe("s", "g", options.clone(), recorder.clone());
        consumers.push(consumer.await.unwrap());
    }
    let publish = async |streams: &Streams| {
        for _ in 0..MESSAGES / 40 {
            streams.publish_batch("s", numbered(20)).await.unwrap();
        }
    };
    tokio::join!(publish(&first), publish(&second));
    let mut ids = BTreeSet::new();
    for _ in 0..MESSAGES {
        let message = next(&mut seen).await.unwrap();
        assert_eq!(message.attempt, 1);
        assert!(ids.insert(message.id), "{} came twice", message.id);
    }
    drop(recorder);
    join_all(consumers.iter().map(Consumer::close)).await;
    assert!(next(&mut seen).await.is_none());
    let group = first.stats("s").await.unwrap().groups.remove(0);
    assert_eq!((group.lag, group.pending), (0, 0));
}

#[tokio::test]
async fn many_processes_may_start_at_once() {
    let schema = Schema::create().await;
    let opening = (0..8).map(|_| PostgresEngine::open(schema.config(), PostgresOptions::default()));
    let engines = try_join_all(opening).await.unwrap();
    for (number, engine) in (1..).zip(&engines) {
        let appended = engine.append(&name("s"), numbered(1), None).await;
        assert_eq!(appended.unwrap()[0].as_u64(), number);
    }
}

#[tokio::test]
async fn concurrent_publishers_share_transactions() {
    let schema = Schema::create().await;
    let engine = schema.engine().await;
    let stream = name("s");
    let publishing = (0..200).map(|_| engine.append(&stream, numbered(1), None));
    let ids = try_join_all(publishing).await.unwrap();
    let distinct: BTreeSet<_> = ids.iter().flatten().map(|id| id.as_u64()).collect();
    assert!(distinct.into_iter().eq(1..=200));
    let count = "SELECT count(DISTINCT xmin::text) FROM tidings_stream_message";
    let transactions: i64 = schema
        .client()
        .await
        .query_one(count, &[])
        .await
        .unwrap()
        .get(0);
    assert!(transactions <= 10, "{transactions}");
}

/// The reference's publishers meet on advisory locks whose keys others may use as well.
#[tokio::test]
async fn regression_advisory_locks_of_others_are_not_in_the_way() {
    let schema = Schema::create().await;
    let streams = schema.streams().await;
    let holder = schema.client().await;
    let lock = "SELECT pg_advisory_lock(hashtext(name)), pg_advisory_lock(hashtext(name), 0)
        FROM unnest(ARRAY['s', 'app.default.s', 'tidings_stream']) AS name";
    holder.query(lock, &[]).await.unwrap();
    streams.publish("s", NewMessage::new("")).await.unwrap();
    let held =
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND pid IN (SELECT pid FROM pg_stat_activity WHERE query LIKE '%tidings_stream_append%')";
    let row = holder.query_one(held, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn an_engine_has_no_more_connections_than_it_says() {
    let schema = Schema::create().await;
    let mark = format!("mark{:016x}", fastrand::u64(..));
    let url = format!("{}&application_name={mark}", schema.url());
    let options = PostgresOptions::default()
        .with_publish_connections(2)
        .with_consume_connections(3);
    let engine = PostgresEngine::open(Config::new(&url).unwrap(), options)
        .await
        .unwrap();
    let streams: Vec<_> = (0..100).map(|number| name(&number.to_string())).collect();
    let publishing = streams
        .iter()
        .map(|stream| engine.append(stream, numbered(1), None));
    let looking = streams.iter().map(|stream| engine.stats(stream));
    let (published, looked) = tokio::join!(try_join_all(publishing), try_join_all(looking));
    published.unwrap();
    looked.unwrap();
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
    let client = schema.client().await;
    let open = async || {
        client
            .query_one(count, &[&mark])
            .await
            .unwrap()
            .get::<_, i64>(0)
    };
    assert!((3..=6).contains(&open().await), "{}", open().await);
    engine.close().await;
    let closed = engine.append(&streams[0], numbered(1), None).await;
    assert!(matches!(closed.unwrap_err(), Error::Closed));
    assert!(matches!(
        engine.stats(&streams[0]).await.unwrap_err(),
        Error::Closed
    ));
    until(async || open().await == 0).await;
}

/// Deadlines, ages and times are the server's: what a client believes the time to be is never sent.
#[tokio::test]
async fn messages_are_dated_and_trimmed_by_the_servers_clock() {
    let schema = Schema::create().await;
    let streams = schema.streams().await;
    let client = schema.client().await;
    let now = "SELECT tidings_stream_now()";
    let before: i64 = client.query_one(now, &[]).await.unwrap().get(0);
    streams.publish_batch("s", numbered(2)).await.unwrap();
    let after: i64 = client.query_one(now, &[]).await.unwrap().get(0);
    for message in streams.read("s", None, 2).await.unwrap() {
        assert!((before..=after).contains(&message.created_at.as_millisecond()));
    }
    let hour = Retention::default().with_max_age(Duration::from_secs(3600));
    streams.set_retention("s", hour).await.unwrap();
    assert_eq!(streams.trim().await.unwrap(), 0);
    // As if the server had been running for an hour since the first one.
    let age =
        "UPDATE tidings_stream_message SET created_at = created_at - 3600001 WHERE number = 1";
    client.execute(age, &[]).await.unwrap();
    assert_eq!(streams.trim().await.unwrap(), 1);
}

/// A session whose statements do not see what was committed while they waited could hand out the same
/// messages twice. An engine sets that right for each of its transactions, in its own sessions and in
/// those of a pooler.
#[tokio::test]
async fn an_isolation_level_that_would_break_the_locks_is_not_used() {
    let schema = Schema::create().await;
    let isolation = "?options=-cdefault_transaction_isolation%3Drepeatable%5C%20read%20";
    let config = || Config::new(&schema.url().replace("?options=", isolation)).unwrap();
    let engine = PostgresEngine::open(config(), PostgresOptions::default())
        .await
        .unwrap();
    let append =
        |engine: PostgresEngine| async move { engine.append(&name("s"), numbered(1), None).await };
    append(engine).await.unwrap();
    let shared = PostgresOptions::default().without_prepared_statements();
    let engine = PostgresEngine::open(config(), shared).await.unwrap();
    append(engine.clone()).await.unwrap();
    assert_eq!(engine.stats(&name("s")).await.unwrap().messages, 2);
    // Nor does a statement that fails leave a transaction open.
    let unknown = engine.members(&key("s", "g")).await;
    assert!(matches!(unknown.unwrap_err(), Error::UnknownGroup));
    append(engine).await.unwrap();
}

#[tokio::test]
async fn tables_of_a_newer_version_are_refused() {
    let schema = Schema::create().await;
    schema.engine().await;
    let newer = "UPDATE tidings_schema SET version = 99 WHERE component = 'tidings_stream'";
    schema.client().await.execute(newer, &[]).await.unwrap();
    let refused = PostgresEngine::open(schema.config(), PostgresOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::Backend(_)), "{refused:?}");
}

/// In a batch that publishers share, only the one at fault gets the error.
#[tokio::test]
async fn a_message_that_the_server_refuses_harms_no_other_publisher() {
    let schema = Schema::create().await;
    let engine = schema.engine().await;
    let client = schema.client().await;
    engine.append(&name("s"), numbered(1), None).await.unwrap();
    let forbid = "ALTER TABLE tidings_stream_message ADD CHECK (payload <> 'bad')";
    client.batch_execute(forbid).await.unwrap();
    let stream = name("s");
    let append = async |payload: &'static str| {
        let messages = vec![NewMessage::new("good"), NewMessage::new(payload)];
        let appended = engine.append(&stream, messages, None).await;
        assert_eq!(appended.is_err(), payload == "bad");
    };
    join_all(["good", "good", "bad", "good", "bad", "good"].map(append)).await;
    let messages = engine.read(&stream, None, 100).await.unwrap();
    assert_eq!(messages.len(), 1 + 4 * 2);
}

/// Nothing of a batch that the server takes part by part is ever seen in part.
#[tokio::test]
async fn a_batch_beyond_the_servers_memory_is_refused_by_size() {
    let schema = Schema::create().await;
    let streams = schema.streams().await;
    let piece = NewMessage::new(vec![0; tidings_stream::MAX_PAYLOAD_BYTES]);
    let refused = streams
        .publish_batch("s", vec![piece; 17])
        .await
        .unwrap_err();
    assert!(
        matches!(refused, Error::TooLarge { field: "batch", .. }),
        "{refused:?}"
    );
    let url = connect(&schema.url()).await;
    let count = url
        .query_one("SELECT count(*) FROM tidings_stream", &[])
        .await
        .unwrap();
    assert_eq!(count.get::<_, i64>(0), 0);
}

/// A commit that notifies makes all others wait. Publishing in a transaction does not notify, unless the
/// caller asks for it; a wake-up after the commit does the same, without waiting for a poll.
#[tokio::test]
async fn a_transaction_notifies_only_if_it_is_asked_to() {
    let schema = Schema::create().await;
    let streams = schema.streams().await;
    let (listener, mut connection) = tokio_postgres::connect(&schema.url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    let (sender, mut notifications) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let Ok(tokio_postgres::AsyncMessage::Notification(it)) = message
                && it.payload() == "outbox"
            {
                sender.send(()).await.unwrap();
            }
        }
    });
    let channel: String = listener
        .query_one("SELECT tidings_stream_channel()", &[])
        .await
        .unwrap()
        .get(0);
    listener
        .batch_execute(&format!("LISTEN \"{channel}\""))
        .await
        .unwrap();
    let (recorder, mut seen) = recorder();
    let consumer = streams
        .subscribe("s", "g", from_start(), recorder)
        .await
        .unwrap();
    let mut client = schema.client().await;
    let stream = name("s");
    for _ in 0..5 {
        let transaction = client.transaction().await.unwrap();
        publish_in(&transaction, &stream, &numbered(1))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        streams.wake(&stream);
        next(&mut seen).await.unwrap();
    }
    assert!(notifications.try_recv().is_err());
    let transaction = client.transaction().await.unwrap();
    publish_in(&transaction, &stream, &numbered(1))
        .await
        .unwrap();
    notify_in(&transaction).await.unwrap();
    transaction.commit().await.unwrap();
    next(&mut seen).await.unwrap();
    notifications.recv().await.unwrap();
    consumer.close().await;
}

/// A transaction that removes much, however large it is, would be given up before its end, and so would the next one.
#[tokio::test]
async fn regression_what_is_removed_at_once_is_bounded_in_bytes() {
    let schema = Schema::create().await;
    let streams = schema.streams().await;
    let client = schema.client().await;
    let definition = "SELECT pg_get_functiondef('tidings_stream_end_of_chunk'::regproc)";
    let definition: String = client.query_one(definition, &[]).await.unwrap().get(0);
    assert!(definition.contains("64 << 20"), "{definition}");
    let smaller = definition.replace("64 << 20", "1000");
    client.batch_execute(&smaller).await.unwrap();
    let count = async || streams.stats("s").await.unwrap().messages;

    let ten = || vec![NewMessage::new(vec![0; 600]); 10];
    streams.publish_batch("s", ten()).await.unwrap();
    let one = Retention::default().with_max_len(1);
    streams.set_retention("s", one).await.unwrap();
    assert_eq!(count().await, 8);
    assert_eq!(streams.trim().await.unwrap(), 7);
    assert_eq!(count().await, 1);

    streams.publish_batch("gone", ten()).await.unwrap();
    let hide = "SELECT tidings_stream_hide('app.default.gone')";
    let hidden: i64 = client.query_one(hide, &[]).await.unwrap().get(0);
    let remove = "SELECT tidings_stream_remove_hidden($1, 1000)";
    let is_done = client.query_one(remove, &[&hidden]).await.unwrap();
    assert!(!is_done.get::<_, bool>(0));
    let left = "SELECT count(*) FROM tidings_stream_message WHERE stream_id = $1";
    let left = async || {
        let row = client.query_one(left, &[&hidden]).await.unwrap();
        row.get::<_, i64>(0)
    };
    assert_eq!(left().await, 8);
    assert_eq!(streams.trim().await.unwrap(), 0);
    assert_eq!(left().await, 0);
}

/// What a group has pending, and the publish keys of a stream, can be as many as the messages.
#[tokio::test]
async fn regression_all_of_a_stream_or_group_is_removed_in_parts() {
    let schema = Schema::create().await;
    let engine = schema.engine().await;
    let client = schema.client().await;
    let stream = name("s");
    let group = key("s", "g");
    let message = |number: u32| {
        let message = NewMessage::new("").with_publish_key(number.to_string(), NEVER);
        message.with_ordering_key("a")
    };
    let rows = "SELECT (SELECT count(*) FROM tidings_stream_message)
        + (SELECT count(*) FROM tidings_stream_publish_key) + (SELECT count(*) FROM tidings_stream_retry)";
    let rows = async || {
        let row = client.query_one(rows, &[]).await.unwrap();
        row.get::<_, i64>(0)
    };
    for (hide, kept) in [
        ("SELECT tidings_stream_hide_group('app.default.s', 'g')", 20),
        ("SELECT tidings_stream_hide('app.default.s')", 0),
    ] {
        if kept > 0 {
            let messages = (0..10).map(message).collect();
            engine.append(&stream, messages, None).await.unwrap();
        }
        engine
            .open_group(&group, StartFrom::Earliest)
            .await
            .unwrap();
        let consumer = ConsumerKey {
            group: group.clone(),
            consumer: "c".into(),
        };
        let in_order = ClaimOptions {
            in_key_order: true,
            ..NEVER.into()
        };
        let claimed = engine.claim(&consumer, 10, in_order).await.unwrap();
        assert_eq!(claimed.messages.len(), 1);
        assert_eq!(rows().await, 30);
        let hidden: i64 = client.query_one(hide, &[]).await.unwrap().get(0);
        let mut before = rows().await;
        assert_eq!(before, 30);
        let remove = "SELECT tidings_stream_remove_hidden($1, 4)";
        while !client
            .query_one(remove, &[&hidden])
            .await
            .unwrap()
            .get::<_, bool>(0)
        {
            let after = rows().await;
            assert!(before - after <= 4);
            before = after;
        }
        assert_eq!(rows().await, kept);
        let claimed = engine.claim(&consumer, 10, NEVER.into()).await;
        assert!(matches!(claimed.unwrap_err(), Error::UnknownGroup));
    }
}

#[tokio::test]
async fn regression_a_stream_that_cannot_be_removed_keeps_the_round_from_no_other() {
    let schema = Schema::create().await;
    let streams = schema.streams().await;
    let client = schema.client().await;
    streams.publish("gone", NewMessage::new("")).await.unwrap();
    let refuse = "
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;
        CREATE TRIGGER refuse BEFORE DELETE ON tidings_stream_message
            FOR EACH ROW WHEN (OLD.stream_id = 1) EXECUTE FUNCTION refuse()";
    client.batch_execute(refuse).await.unwrap();
    assert!(streams.delete_stream("gone").await.unwrap());
    let hour = Retention::default().with_max_age(Duration::from_secs(3600));
    streams.set_retention("s", hour).await.unwrap();
    streams.publish_batch("s", numbered(2)).await.unwrap();
    let age =
        "UPDATE tidings_stream_message SET created_at = created_at - 3600001 WHERE number = 1";
    client.execute(age, &[]).await.unwrap();
    streams.trim().await.unwrap_err();
    assert_eq!(streams.stats("s").await.unwrap().messages, 1);
}
