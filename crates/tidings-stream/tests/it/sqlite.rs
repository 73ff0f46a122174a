//! What only the SQLite engine promises.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidings_sqlite::{Database, Options};
use tidings_stream::engine::{
    ClaimOptions, Claimed, ConsumerKey, Engine, GroupKey, Outcome, Settlement,
};
use tidings_stream::sqlite::{SqliteEngine, publish_in};
use tidings_stream::{
    Context, Error, GroupName, Handler, HandlerError, Headers, Message, NewMessage, Retention,
    ServiceConfig, StartFrom, StreamName, Streams, SubscribeOptions,
};
use tidings_test_support::DiskTrace;
use tokio::sync::mpsc;

use crate::children::say;

const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// Between two looks at what may have happened.
const SHORT: Duration = Duration::from_millis(100);

fn open_database(folder: &Path) -> Database {
    Database::open(folder.join("test.db"), &Options::default()).unwrap()
}

async fn open_streams(folder: &Path) -> (Database, Streams) {
    let database = open_database(folder);
    let engine = SqliteEngine::open(database.clone()).await.unwrap();
    (
        database,
        Streams::new(Arc::new(engine), ServiceConfig::default()),
    )
}

fn numbered(count: u64) -> Vec<NewMessage> {
    (1..=count)
        .map(|number| NewMessage::new(number.to_string()))
        .collect()
}

fn from_start() -> SubscribeOptions {
    SubscribeOptions::default()
        .with_start(StartFrom::Earliest)
        .with_poll_interval(NEVER)
}

/// Waits for the next message, but not for ever.
async fn next(seen: &mut mpsc::Receiver<Message>) -> Option<Message> {
    tokio::time::timeout(Duration::from_secs(60), seen.recv())
        .await
        .expect("it comes within a minute")
}

/// A handler that acknowledges everything and passes it on.
#[derive(Clone)]
struct Recorder(mpsc::Sender<Message>);

fn recorder() -> (Recorder, mpsc::Receiver<Message>) {
    let (sender, receiver) = mpsc::channel(1 << 14);
    (Recorder(sender), receiver)
}

impl Handler for Recorder {
    async fn handle(&self, message: Message, _: Context) -> Result<(), HandlerError> {
        Ok(self.0.send(message).await?)
    }
}

#[tokio::test]
async fn a_message_of_the_callers_transaction_exists_once_it_commits() {
    let folder = tempfile::tempdir().unwrap();
    let (database, streams) = open_streams(folder.path()).await;
    let (recorder, mut seen) = recorder();
    let consumer = streams
        .subscribe("orders", "group", from_start(), recorder)
        .await
        .unwrap();

    let name = streams.name("orders").unwrap();
    let publish = |body: &'static str, commit: bool| {
        let name = name.clone();
        database.write(move |tx| {
            let ids = publish_in(tx, &name, &[NewMessage::new(body), NewMessage::new("and")])?;
            if commit { Ok(ids) } else { Err(Error::Closed) }
        })
    };
    publish("never", false).await.unwrap_err();
    let ids = publish("once", true).await.unwrap();
    streams.wake(&name);
    let messages = [
        next(&mut seen).await.unwrap(),
        next(&mut seen).await.unwrap(),
    ];
    assert_eq!(messages[0].payload, "once");
    assert_eq!(ids, messages.map(|message| message.id));
    assert_eq!(ids[0].as_u64(), 1);
    consumer.close().await;
    assert!(next(&mut seen).await.is_none());
}

#[tokio::test]
async fn publishing_in_a_transaction_refuses_what_is_too_large_and_leaves_retention_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (database, streams) = open_streams(folder.path()).await;
    let bounded = streams
        .clone()
        .with_retention(Retention::default().with_max_len(2));
    bounded.publish_batch("s", numbered(2)).await.unwrap();
    let name = streams.name("s").unwrap();
    database
        .write(move |tx| {
            let large = NewMessage::new(vec![0; tidings_stream::MAX_PAYLOAD_BYTES + 1]);
            let refused = publish_in(tx, &name, &[large]).unwrap_err();
            assert!(matches!(refused, Error::TooLarge { .. }));
            assert!(publish_in(tx, &name, &[])?.is_empty());
            publish_in(tx, &name, &numbered(3))
        })
        .await
        .unwrap();
    assert_eq!(streams.stats("s").await.unwrap().messages, 5);
    assert_eq!(streams.trim().await.unwrap(), 3);
}

#[tokio::test]
async fn what_a_run_that_ended_had_claimed_comes_again_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let key = {
        let (database, streams) = open_streams(folder.path()).await;
        streams.publish_batch("s", numbered(100)).await.unwrap();
        let key = GroupKey {
            stream: streams.name("s").unwrap(),
            group: GroupName::new("g").unwrap(),
        };
        let engine = SqliteEngine::open(database.clone()).await.unwrap();
        engine.open_group(&key, StartFrom::Earliest).await.unwrap();
        let consumer = ConsumerKey {
            group: key.clone(),
            consumer: "one that ends".into(),
        };
        // Of a hundred, 1 is acknowledged, 2 waits for a retry, 3 is on its second attempt, and the
        // rest is being handled when the run ends.
        let claimed = engine
            .claim(&consumer, 100, NEVER.into())
            .await
            .unwrap()
            .messages;
        let outcomes = [
            Outcome::Acknowledged,
            Outcome::Retry {
                delay: NEVER,
                error: None,
            },
            Outcome::Retry {
                delay: Duration::ZERO,
                error: None,
            },
        ];
        let settlements: Arc<[Settlement]> = claimed
            .iter()
            .zip(outcomes)
            .map(|(it, outcome)| Settlement {
                receipt: it.receipt,
                outcome,
            })
            .collect();
        engine.settle(&key, settlements).await.unwrap();
        let second = engine
            .claim(&consumer, 100, NEVER.into())
            .await
            .unwrap()
            .messages;
        assert_eq!(second[0].message.id.as_u64(), 3);
        database.close().await;
        key
    };
    let (_database, streams) = open_streams(folder.path()).await;
    let (recorder, mut seen) = recorder();
    let consumer = streams
        .subscribe("s", "g", from_start().with_concurrency(128), recorder)
        .await
        .unwrap();
    let mut attempts = Vec::new();
    for _ in 0..98 {
        let message = next(&mut seen).await.unwrap();
        attempts.push((message.id.as_u64(), message.attempt));
    }
    attempts.sort_unstable();
    let expected = (3..=100).map(|id| (id, if id == 3 { 3 } else { 2 }));
    assert!(attempts.into_iter().eq(expected));
    consumer.close().await;
    assert!(next(&mut seen).await.is_none());
    assert_eq!(key.stream, streams.name("s").unwrap());
    let group = streams.stats("s").await.unwrap().groups.remove(0);
    assert_eq!(group.pending, 1, "a retry keeps its delay over a restart");
}

#[tokio::test]
async fn two_engines_on_one_database_leave_each_other_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (database, first) = open_streams(folder.path()).await;
    first.publish_batch("s", numbered(4)).await.unwrap();
    let (gate, gate_open) = tokio::sync::watch::channel(false);
    let (started, mut running) = mpsc::channel(8);
    let holding = move |_: Message| {
        let (started, mut gate_open) = (started.clone(), gate_open.clone());
        async move {
            started.send(()).await?;
            gate_open.wait_for(|open| *open).await?;
            Ok(())
        }
    };
    let options = from_start().with_concurrency(4);
    let consumer = first
        .subscribe("s", "g", options.clone(), holding)
        .await
        .unwrap();
    for _ in 0..4 {
        running.recv().await.unwrap();
    }
    // Opened side by side, to race for the lock.
    let (a, b) = tokio::join!(
        SqliteEngine::open(database.clone()),
        SqliteEngine::open(open_database(folder.path()))
    );
    let second = Streams::new(Arc::new(a.unwrap()), ServiceConfig::default());
    let third = Streams::new(Arc::new(b.unwrap()), ServiceConfig::default());
    let (recorder, mut seen) = recorder();
    let other = second
        .subscribe("s", "g", options.clone(), recorder.clone())
        .await
        .unwrap();
    let another = third.subscribe("s", "g", options, recorder).await.unwrap();
    second.publish("s", NewMessage::new("5")).await.unwrap();
    assert_eq!(next(&mut seen).await.unwrap().payload, "5");
    gate.send_replace(true);
    assert_eq!(consumer.close().await.finished, 4);
    assert_eq!(consumer.stats().acknowledged, 4);
    tokio::join!(other.close(), another.close());
    assert!(next(&mut seen).await.is_none());
}

#[tokio::test]
async fn a_clock_that_was_set_back_keeps_no_message_waiting() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (database, streams) = open_streams(folder.path()).await;
        streams.publish("s", NewMessage::new("1")).await.unwrap();
        let again = |_: Message| async {
            Err(HandlerError::retry_after(Duration::from_millis(1), "again"))
        };
        let options = from_start().with_unlimited_retries();
        let consumer = streams.subscribe("s", "g", options, again).await.unwrap();
        while consumer.stats().retried == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        consumer.close().await;
        // What the file looks like when the clock was an hour ahead in the run before.
        database
            .write(|tx| {
                tx.execute("UPDATE stream_retry SET due = due + 3600000", [])?;
                Ok::<_, Error>(())
            })
            .await
            .unwrap();
        database.close().await;
    }
    let (_database, streams) = open_streams(folder.path()).await;
    let (recorder, mut seen) = recorder();
    let consumer = streams
        .subscribe("s", "g", from_start(), recorder)
        .await
        .unwrap();
    assert_eq!(next(&mut seen).await.unwrap().payload, "1");
    consumer.close().await;
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (database, _streams) = open_streams(folder.path()).await;
    database
        .write(|tx| {
            tx.execute(
                "UPDATE tidings_schema SET version = 99 WHERE component = 'stream'",
                [],
            )?;
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
    let refused = SqliteEngine::open(database).await.unwrap_err();
    assert!(matches!(refused, Error::Backend(_)), "{refused:?}");
}

/// A dead letter that the disk has no room for, played by SQLite's own page limit, does not keep an acknowledgement from being recorded.
#[tokio::test]
async fn regression_a_dead_letter_without_room_holds_up_no_acknowledgement() {
    let folder = tempfile::tempdir().unwrap();
    let (database, streams) = open_streams(folder.path()).await;
    let limit = |pages: i64| {
        database.write(move |tx| {
            tx.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
            Ok::<_, Error>(())
        })
    };
    let large = vec![NewMessage::new(vec![1; 1 << 20]); 2];
    streams.publish_batch("s", large).await.unwrap();
    limit(1).await.unwrap();
    let handler = |messages: Vec<Message>| async move {
        let mut failed = tidings_stream::BatchError::none();
        failed.push(messages[0].id, HandlerError::skip_retry("no"));
        failed.into_result()
    };
    let options = from_start().with_visibility_timeout(NEVER);
    let consumer = streams
        .subscribe_batch("s", "g", options, handler)
        .await
        .unwrap();
    let pending = async || streams.stats("s").await.unwrap().groups[0].pending;
    while consumer.stats().acknowledged < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(pending().await, 1);
    limit(1_000_000).await.unwrap();
    while consumer.stats().dead_lettered < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(pending().await, 0);
    consumer.close().await;
}

/// A stream that cannot be trimmed or removed does not keep the others from it.
#[tokio::test]
async fn regression_one_broken_stream_does_not_end_the_trimming() {
    let folder = tempfile::tempdir().unwrap();
    let (database, streams) = open_streams(folder.path()).await;
    for stream in ["a", "b", "c", "gone"] {
        streams.publish_batch(stream, numbered(5)).await.unwrap();
    }
    let execute = |statements: &'static str| {
        database.write(move |tx| {
            tx.execute_batch(statements)?;
            Ok::<_, Error>(())
        })
    };
    let bound_and_break = "UPDATE stream SET max_len = 2;
        CREATE TRIGGER broken BEFORE DELETE ON stream_message
            WHEN old.key >> 40 IN (2, 4)
        BEGIN SELECT RAISE(ABORT, 'broken'); END;";
    execute(bound_and_break).await.unwrap();
    assert!(streams.delete_stream("gone").await.unwrap());
    streams.trim().await.unwrap_err();
    let messages = async |stream| streams.stats(stream).await.unwrap().messages;
    assert_eq!((messages("a").await, messages("b").await), (2, 5));
    assert_eq!(messages("c").await, 2);
    execute("DROP TRIGGER broken").await.unwrap();
    assert_eq!(streams.trim().await.unwrap(), 3);
}

/// What a seek or a deletion drops may be more than one transaction should remove, and what cannot be removed yet keeps
/// neither from being done.
#[tokio::test]
async fn what_a_group_has_pending_is_removed_in_parts() {
    const PENDING: &str = "INSERT INTO stream_retry (group_id, number, due, delay, attempts, since)
        SELECT group_id, value, 0, 0, 1, 0 FROM stream_group, generated WHERE name = 'g'";
    const LEFT: &str = "SELECT (SELECT count(*) FROM stream_retry), (SELECT count(*) FROM stream)";
    let folder = tempfile::tempdir().unwrap();
    let (database, streams) = open_streams(folder.path()).await;
    let execute = |statements: String| {
        database.write(move |tx| {
            tx.execute_batch(&statements)?;
            Ok::<_, Error>(())
        })
    };
    let left = || {
        database.read(|connection| {
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            Ok::<(i64, i64), Error>(connection.query_row(LEFT, [], read)?)
        })
    };
    let forbid = "CREATE TRIGGER broken BEFORE DELETE ON stream_retry WHEN old.number = 2500
        BEGIN SELECT RAISE(ABORT, 'broken'); END";
    for (dropped, streams_left) in [("seek", 1), ("group", 1), ("stream", 0)] {
        streams
            .create_group("s", "g", StartFrom::Latest)
            .await
            .unwrap();
        let generate = format!(
            "WITH RECURSIVE generated (value) AS
                (SELECT 1 UNION ALL SELECT value + 1 FROM generated WHERE value < 3000) {PENDING}"
        );
        execute(format!("{generate}; {forbid}")).await.unwrap();
        match dropped {
            "seek" => streams.seek("s", "g", StartFrom::Latest).await.unwrap(),
            "group" => assert!(streams.delete_group("s", "g").await.unwrap()),
            _ => assert!(streams.delete_stream("s").await.unwrap()),
        }
        let (retries, _) = left().await.unwrap();
        assert!((1..3000).contains(&retries), "{dropped}: {retries}");
        let has_pending = streams.pending("s", "g", None, 10).await;
        assert!(
            has_pending.map_or(true, |pending| pending.is_empty()),
            "{dropped}"
        );
        streams.trim().await.unwrap_err();
        execute("DROP TRIGGER broken".to_owned()).await.unwrap();
        streams.trim().await.unwrap();
        assert_eq!(left().await.unwrap(), (0, streams_left), "{dropped}");
    }
}

/// Its messages would be counted as delivered again, and are not.
#[tokio::test]
async fn a_start_brings_back_no_claim_of_a_deleted_group() {
    const COUNTS: &str =
        "SELECT (SELECT count(*) FROM stream_lease), (SELECT count(*) FROM stream_retry)";
    let folder = tempfile::tempdir().unwrap();
    let database = open_database(folder.path());
    let engine = SqliteEngine::open(database.clone()).await.unwrap();
    let consumer = ConsumerKey {
        group: GroupKey {
            stream: StreamName::new("test", "sqlite", "s").unwrap(),
            group: GroupName::new("g").unwrap(),
        },
        consumer: "c".into(),
    };
    let stream = &consumer.group.stream;
    engine.append(stream, numbered(2), None).await.unwrap();
    engine
        .open_group(&consumer.group, StartFrom::Earliest)
        .await
        .unwrap();
    let claimed = engine.claim(&consumer, 10, ClaimOptions::from(NEVER)).await;
    assert_eq!(claimed.unwrap().messages.len(), 2);
    let execute = async |statements: &'static str| {
        let execute = move |tx: &rusqlite::Transaction<'_>| {
            tx.execute_batch(statements)?;
            Ok::<_, Error>(())
        };
        database.write(execute).await.unwrap();
    };
    execute(
        "CREATE TRIGGER broken BEFORE DELETE ON stream_lease BEGIN SELECT RAISE(ABORT, 'broken'); END",
    )
    .await;
    assert!(engine.delete_group(&consumer.group).await.unwrap());
    execute("DROP TRIGGER broken").await;
    drop(engine);
    database.close().await;

    let database = open_database(folder.path());
    let _engine = SqliteEngine::open(database.clone()).await.unwrap();
    let counts = database.read(|connection| {
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        Ok::<(i64, i64), Error>(connection.query_row(COUNTS, [], read)?)
    });
    assert_eq!(counts.await.unwrap(), (1, 0));
}

/// A batch that the disk has no room for leaves none of its messages behind.
#[tokio::test]
async fn a_batch_that_does_not_fit_is_refused_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (database, streams) = open_streams(folder.path()).await;
    streams.publish_batch("s", numbered(3)).await.unwrap();
    database
        .write(|tx| {
            let pages: i64 = tx.query_row("PRAGMA page_count", [], |row| row.get(0))?;
            let limit = format!("PRAGMA max_page_count = {}", pages + 20);
            tx.query_row(&limit, [], |_| Ok(()))?;
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
    let mut batch = numbered(3);
    batch.push(NewMessage::new(vec![1; 1 << 20]));
    let refused = streams.publish_batch("s", batch).await.unwrap_err();
    assert!(matches!(refused, Error::Full(_)), "{refused:?}");
    assert_eq!(streams.stats("s").await.unwrap().messages, 3);
    let ids = streams.publish_batch("s", numbered(3)).await.unwrap();
    assert_eq!(ids[0].as_u64(), 4);
}

async fn execute(database: &Database, statements: &'static str) {
    let executing = database.write(move |tx| {
        tx.execute_batch(statements)?;
        Ok::<_, Error>(())
    });
    executing.await.unwrap();
}

/// Neither a publish key nor a member outlives its time because the clock was ahead in the run before.
#[tokio::test]
async fn a_clock_that_was_set_back_keeps_no_key_and_no_member() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (database, streams) = open_streams(folder.path()).await;
        let keyed = NewMessage::new("").with_publish_key("key", Duration::from_secs(60));
        streams.publish("s", keyed).await.unwrap();
        streams
            .create_group("s", "g", StartFrom::Earliest)
            .await
            .unwrap();
        let ahead = "UPDATE stream_publish_key SET expires = expires + 365 * 24 * 3600000;
            INSERT INTO stream_member SELECT group_id, 'gone', 1 << 60 FROM stream_group";
        execute(&database, ahead).await;
        database.close().await;
    }
    let (database, streams) = open_streams(folder.path()).await;
    assert!(streams.members("s", "g").await.unwrap().is_empty());
    let expires = database.read::<i64, Error, _>(|connection| {
        let expires = "SELECT max(expires) - unixepoch() * 1000 FROM stream_publish_key";
        Ok(connection.query_row(expires, [], |row| row.get(0))?)
    });
    let expires = expires.await.unwrap();
    assert!(expires < 31 * 24 * 3_600_000, "{expires}");
}

/// A message whose row is broken is held back, whether it is new or comes again, and stops no other. It comes,
/// with no attempt counted, once it can be read.
#[tokio::test]
async fn a_message_that_cannot_be_read_stops_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (database, streams) = open_streams(folder.path()).await;
    let engine = SqliteEngine::open(database.clone()).await.unwrap();
    for (group, in_key_order) in [("g", false), ("ordered", true)] {
        let key = GroupKey {
            stream: streams.name("s").unwrap(),
            group: GroupName::new(group).unwrap(),
        };
        engine.open_group(&key, StartFrom::Latest).await.unwrap();
        let consumer = ConsumerKey {
            group: key.clone(),
            consumer: "c".into(),
        };
        streams.publish_batch("s", numbered(3)).await.unwrap();
        let claim = async || {
            let mut options = ClaimOptions::from(NEVER);
            options.in_key_order = in_key_order;
            engine.claim(&consumer, 10, options).await.unwrap()
        };
        let seen = |claimed: &Claimed| {
            let messages = claimed.messages.iter();
            let seen = messages.map(|it| (it.message.payload.clone(), it.message.attempt));
            seen.collect::<Vec<_>>()
        };
        let release = async |claimed: &Claimed| {
            let released = claimed.messages.iter().map(|it| Settlement {
                receipt: it.receipt,
                outcome: Outcome::Released,
            });
            engine.settle(&key, released.collect()).await.unwrap();
        };
        let second_of_three = "UPDATE stream_message SET headers = 'broken'
            WHERE key = (SELECT max(key) - 1 FROM stream_message)";
        let repair = "UPDATE stream_message SET headers = NULL";
        for _ in ["new", "again"] {
            execute(&database, second_of_three).await;
            let claimed = claim().await;
            assert_eq!(seen(&claimed), [("1".into(), 1), ("3".into(), 1)]);
            assert!(claimed.next_due.unwrap() <= Duration::from_secs(5));
            execute(&database, repair).await;
            release(&claimed).await;
            let mut all = Vec::new();
            while all.len() < 3 {
                let claimed = claim().await;
                tokio::time::sleep(claimed.next_due.unwrap_or_default().min(SHORT)).await;
                all.extend(claimed.messages);
            }
            let mut all = Claimed {
                messages: all,
                next_due: None,
            };
            all.messages.sort_by_key(|it| it.message.id);
            assert_eq!(
                seen(&all),
                [("1".into(), 1), ("2".into(), 1), ("3".into(), 1)]
            );
            release(&all).await;
        }
    }
}

/// A stream is deleted once it is out of sight, whether or not its messages can be removed at once.
#[tokio::test]
async fn a_stream_whose_messages_cannot_be_removed_yet_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let (database, streams) = open_streams(folder.path()).await;
    streams.publish_batch("s", numbered(5)).await.unwrap();
    let trouble = "CREATE TRIGGER trouble BEFORE DELETE ON stream_message
        BEGIN SELECT RAISE(ABORT, 'broken'); END;";
    execute(&database, trouble).await;
    assert!(streams.delete_stream("s").await.unwrap());
    assert!(streams.list().await.unwrap().is_empty());
    assert!(!streams.delete_stream("s").await.unwrap());
    execute(&database, "DROP TRIGGER trouble").await;
    streams.trim().await.unwrap();
    let left = database.read::<i64, Error, _>(|connection| {
        let left = "SELECT count(*) FROM stream_message";
        Ok(connection.query_row(left, [], |row| row.get(0))?)
    });
    assert_eq!(left.await.unwrap(), 0);
}

/// Has the folder of a traced child.
const TRACED: &str = "TIDINGS_STREAM_TEST_TRACED";

/// Otherwise its id could be given to another message after a loss of power, and who has read it would miss that
/// one. An acknowledgement need not be on disk: what is lost of it comes again.
#[tokio::test]
async fn a_dead_letter_is_on_disk_before_it_is_there_for_others() {
    if let Ok(folder) = std::env::var(TRACED) {
        return settle_and_say(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let trace = DiskTrace::new(&folder.path().join("trace"));
    let mut child = trace.command(std::env::current_exe().unwrap());
    let test = "sqlite::a_dead_letter_is_on_disk_before_it_is_there_for_others";
    let output = child
        .args(["--exact", test, "--nocapture"])
        .env(TRACED, folder.path())
        .output()
        .unwrap();
    let of = |said| trace.replies(said, &["test.db-wal", "test.db"]).unwrap();
    let (acknowledged, dead) = (of("said acknowledged"), of("said dead"));
    assert_eq!((acknowledged.len(), dead.len()), (1, 2), "{output:?}");
    assert!(!acknowledged[0].unsynced.is_empty(), "{acknowledged:?}");
    for letter in dead {
        assert!(
            letter.written > 0 && letter.unsynced.is_empty(),
            "{letter:?}"
        );
    }
}

/// Says how claims have ended: alone, and together with another one.
async fn settle_and_say(folder: &Path) {
    let engine = SqliteEngine::open(open_database(folder)).await.unwrap();
    let key = GroupKey {
        stream: StreamName::new("app", "default", "s").unwrap(),
        group: GroupName::new("g").unwrap(),
    };
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    engine.append(&key.stream, numbered(4), None).await.unwrap();
    let consumer = ConsumerKey {
        group: key.clone(),
        consumer: "c".into(),
    };
    let claimed = engine.claim(&consumer, 4, NEVER.into()).await.unwrap();
    let dead = || Outcome::Dead {
        to: key.stream.dead_letter(),
        provenance: Headers::new(),
    };
    let ends = [dead(), Outcome::Acknowledged, dead(), Outcome::Acknowledged];
    let settlements = claimed.messages.iter().zip(ends);
    let settlements = settlements.map(|(it, outcome)| Settlement {
        receipt: it.receipt,
        outcome,
    });
    let settlements: Vec<_> = settlements.collect();
    for (ending, what) in [
        (&settlements[..1], "said dead"),
        (&settlements[1..2], "said acknowledged"),
        (&settlements[2..], "said dead"),
    ] {
        let obeyed = engine.settle(&key, ending.into()).await.unwrap();
        assert!(obeyed.into_iter().all(|it| it));
        say(what);
    }
}
