//! Streams of a file go on in a PostgreSQL database.

use std::path::Path;
use std::time::Duration;

use tidings_import::{Part, Source};
use tidings_sqlite::{Database, Options};
use tidings_stream::engine::{ClaimedMessage, ConsumerKey, Engine, GroupKey, Outcome, Settlement};
use tidings_stream::postgres::{Config, PostgresEngine, PostgresOptions};
use tidings_stream::sqlite::SqliteEngine;
use tidings_stream::{GroupName, NewMessage, StartFrom, StreamName, import};
use tidings_test_support::Schema;

const PARTS: &[Part] = &[import::PART];
const HOUR: Duration = Duration::from_secs(3600);

fn message(n: u32) -> NewMessage {
    NewMessage::new(vec![0, 255, b'\\', b'\n', b'0' + u8::try_from(n).unwrap()])
        .with_header("n", n.to_string())
}

fn keyed(n: u32) -> NewMessage {
    message(n).with_publish_key("once", HOUR)
}

fn numbers(messages: &[ClaimedMessage]) -> Vec<(&str, u32)> {
    let number = |it: &ClaimedMessage| it.message.headers["n"].clone();
    let mut numbers = Vec::new();
    for claimed in messages {
        assert_eq!(claimed.message.payload[4], number(claimed).as_bytes()[0]);
        numbers.push((&*claimed.message.headers["n"], claimed.message.attempt));
    }
    numbers
}

/// Moves the streams of a file, and opens them where they are then.
async fn import(path: &Path) -> (Schema, PostgresEngine) {
    let database = Database::open(path, &Options::default()).unwrap();
    let source = Source::check(database.clone(), PARTS).await.unwrap();
    let _alone = SqliteEngine::open(database).await.unwrap();
    let schema = Schema::create().await;
    let config = Config::new(&schema.url()).unwrap();
    let open = || PostgresEngine::open(config.clone(), PostgresOptions::default());
    open().await.unwrap().close().await;
    let locked = tidings_import::lock(&source, &config).await.unwrap();
    let copied = locked.copy(|_| {}).await.unwrap();
    copied.finish().await.unwrap();
    let engine = open().await.unwrap();
    (schema, engine)
}

#[tokio::test]
async fn a_group_goes_on_where_it_was_and_what_it_had_open_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    let stream = StreamName::new("test", "import", "orders").unwrap();
    let other = StreamName::new("test", "import", "other").unwrap();
    let deleted = StreamName::new("test", "import", "deleted").unwrap();
    let consumer = ConsumerKey {
        group: GroupKey {
            stream: stream.clone(),
            group: GroupName::new("group").unwrap(),
        },
        consumer: "first".into(),
    };

    let database = Database::open(&path, &Options::default()).unwrap();
    let engine = SqliteEngine::open(database.clone()).await.unwrap();
    for (stream, count) in [(&other, 2), (&stream, 6), (&deleted, 3)] {
        let messages = (1..=count).map(message).collect();
        engine.append(stream, messages, None).await.unwrap();
    }
    let once = engine.append(&stream, vec![keyed(7)], None).await.unwrap();
    engine.delete_stream(&deleted).await.unwrap();
    engine
        .open_group(&consumer.group, StartFrom::Earliest)
        .await
        .unwrap();
    let claimed = engine.claim(&consumer, 4, HOUR.into()).await.unwrap();
    let settled = |n: usize, outcome| Settlement {
        receipt: claimed.messages[n].receipt,
        outcome,
    };
    let retry = Outcome::Retry {
        delay: Duration::ZERO,
        error: Some("a\tproblem".to_owned()),
    };
    let settlements = [settled(0, Outcome::Acknowledged), settled(1, retry)];
    let obeyed = engine.settle(&consumer.group, settlements.into()).await;
    assert_eq!(obeyed.unwrap(), [true, true]);
    // The process ends with two messages in its hands.
    drop(engine);
    database.close().await;

    let (_schema, engine) = import(&path).await;
    let names = engine.list("").await.unwrap();
    assert_eq!(names, [stream.clone(), other.clone()]);
    let again = engine.append(&stream, vec![keyed(7)], None).await.unwrap();
    assert_eq!(again, once);
    let new = engine
        .append(&stream, vec![message(8)], None)
        .await
        .unwrap();
    assert!(new[0] > once[0]);
    let claimed = engine.claim(&consumer, 10, HOUR.into()).await.unwrap();
    let mut found = numbers(&claimed.messages);
    found.sort_unstable();
    let expected = [
        ("2", 2),
        ("3", 2),
        ("4", 2),
        ("5", 1),
        ("6", 1),
        ("7", 1),
        ("8", 1),
    ];
    assert_eq!(found, expected);
    let errors = claimed.messages.iter();
    let errors: Vec<_> = errors.filter_map(|it| it.last_error.as_deref()).collect();
    assert_eq!(errors, ["a\tproblem"]);
    let kept = engine.read(&other, None, 10).await.unwrap();
    assert_eq!(kept.len(), 2);
    // A new stream and a new group get ids of their own.
    let group = GroupKey {
        stream: deleted.clone(),
        group: consumer.group.group.clone(),
    };
    engine
        .append(&deleted, vec![message(9)], None)
        .await
        .unwrap();
    engine
        .open_group(&group, StartFrom::Earliest)
        .await
        .unwrap();
    let consumer = ConsumerKey { group, ..consumer };
    let claimed = engine.claim(&consumer, 10, HOUR.into()).await.unwrap();
    assert_eq!(numbers(&claimed.messages), [("9", 1)]);
}

/// A group that has passed the message would never get another one of the same id.
#[tokio::test]
async fn regression_the_id_of_a_deleted_message_is_not_given_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    let stream = StreamName::new("test", "import", "orders").unwrap();
    let emptied = StreamName::new("test", "import", "emptied").unwrap();
    let database = Database::open(&path, &Options::default()).unwrap();
    let engine = SqliteEngine::open(database.clone()).await.unwrap();
    for stream in [&stream, &emptied] {
        let messages = (1..=3).map(message).collect();
        let ids = engine.append(stream, messages, None).await.unwrap();
        let kept = if *stream == emptied { 0 } else { 2 };
        for id in &ids[kept..] {
            assert!(engine.delete_message(stream, *id).await.unwrap());
        }
    }
    drop(engine);
    database.close().await;

    let (_schema, engine) = import(&path).await;
    for (stream, expected) in [(&stream, &[1, 2, 4][..]), (&emptied, &[4])] {
        let new = engine.append(stream, vec![message(4)], None).await;
        assert_eq!(new.unwrap()[0].as_u64(), 4);
        let read = engine.read(stream, None, 10).await.unwrap();
        let ids: Vec<_> = read.iter().map(|it| it.id.as_u64()).collect();
        assert_eq!(ids, expected);
    }
}

/// A deleted stream whose rows could not be removed yet is left behind, with its groups and publish keys.
#[tokio::test]
async fn what_is_out_of_sight_is_not_moved() {
    const LEFT: &str = "SELECT (SELECT count(*) FROM tidings_stream)
        + (SELECT count(*) FROM tidings_stream_group)
        + (SELECT count(*) FROM tidings_stream_lease)
        + (SELECT count(*) FROM tidings_stream_retry_floor)
        + (SELECT count(*) FROM tidings_stream_publish_key)
        + (SELECT count(*) FROM tidings_stream_message)";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    let stream = StreamName::new("test", "import", "deleted").unwrap();
    let database = Database::open(&path, &Options::default()).unwrap();
    let engine = SqliteEngine::open(database.clone()).await.unwrap();
    engine.append(&stream, vec![keyed(1)], None).await.unwrap();
    let group = GroupKey {
        stream: stream.clone(),
        group: GroupName::new("group").unwrap(),
    };
    engine
        .open_group(&group, StartFrom::Earliest)
        .await
        .unwrap();
    let forbid = "CREATE TRIGGER broken BEFORE DELETE ON stream_message
        BEGIN SELECT RAISE(ABORT, 'broken'); END";
    let forbid = |tx: &rusqlite::Transaction<'_>| {
        tx.execute_batch(forbid)?;
        Ok::<_, tidings_sqlite::Error>(())
    };
    database.write(forbid).await.unwrap();
    assert!(engine.delete_stream(&stream).await.unwrap());
    drop(engine);
    database.close().await;

    let (schema, _engine) = import(&path).await;
    let client = Config::new(&schema.url()).unwrap().connect().await.unwrap();
    let left = client.query_one(LEFT, &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 0);
}
