use std::sync::Arc;
use std::time::Duration;

use super::support::{
    NEVER, from_start, key, number, numbered, recorder, some_consumer, streams, subscribe, until,
};
use crate::engine::{ConsumerKey, Engine, Outcome, Settlement};
use crate::{
    Error, HandlerError, Message, MessageId, NewMessage, ServiceConfig, StartFrom, StreamStats,
    Streams, SubscribeOptions,
};

/// Publishes one message at a time until one is younger than the first, and returns when that was
/// appended and its id.
async fn a_moment(streams: &Streams) -> (jiff::Timestamp, MessageId) {
    streams.publish("s", NewMessage::new("")).await.unwrap();
    let first = streams.read("s", None, 1).await.unwrap().remove(0);
    loop {
        let id = streams.publish("s", NewMessage::new("")).await.unwrap();
        let before = MessageId::from_u64(id.as_u64() - 1);
        let last = streams.read("s", Some(before), 1).await.unwrap().remove(0);
        assert_eq!(last.id, id);
        if last.created_at > first.created_at {
            return (last.created_at, id);
        }
        tokio::task::yield_now().await;
    }
}

/// A group may begin at a time: with the first message that was appended then or later.
pub async fn a_group_may_start_at_a_time(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let (time, first) = a_moment(&streams).await;
    streams.publish_batch("s", numbered(3)).await.unwrap();
    let nanosecond = jiff::SignedDuration::from_nanos(1);
    let starts = [
        (jiff::Timestamp::UNIX_EPOCH, 1),
        (time, first.as_u64()),
        (time - nanosecond, first.as_u64()),
    ];
    for (index, (start, expected)) in starts.into_iter().enumerate() {
        let (recorder, mut seen) = recorder();
        let options = from_start().with_start(StartFrom::At(start));
        let consumer = subscribe(&streams, "s", &format!("g{index}"), options, recorder).await;
        assert_eq!(seen.next().await.id.as_u64(), expected);
        consumer.close().await;
    }
    let later = StartFrom::At(jiff::Timestamp::MAX);
    let (recorder, mut seen) = recorder();
    let options = from_start().with_start(later);
    let consumer = subscribe(&streams, "s", "later", options, recorder).await;
    let id = streams.publish("s", NewMessage::new("")).await.unwrap();
    assert_eq!(seen.next().await.id, id);
    consumer.close().await;
}

/// A group that seeks continues from there: back over what it has done, ahead over what it has not,
/// with a consumer at work. Nothing that it had pending is left.
pub async fn a_group_seeks(engine: Arc<dyn Engine>) {
    let streams = streams(engine.clone());
    streams.publish_batch("s", numbered(5)).await.unwrap();
    let (recorder, mut seen) = recorder();
    let options = from_start().with_poll_interval(NEVER);
    let consumer = subscribe(&streams, "s", "g", options, recorder).await;
    assert_eq!(seen.numbers(5).await, [1, 2, 3, 4, 5]);
    until(|| async { consumer.stats().acknowledged == 5 }).await;
    streams.seek("s", "g", StartFrom::Earliest).await.unwrap();
    assert_eq!(seen.numbers(5).await, [1, 2, 3, 4, 5]);
    let third = StartFrom::After(MessageId::from_u64(3));
    until(|| async { consumer.stats().acknowledged == 10 }).await;
    streams.seek("s", "g", third).await.unwrap();
    assert_eq!(seen.numbers(2).await, [4, 5]);
    consumer.close().await;

    let group = key(&streams, "s", "g");
    streams.seek("s", "g", StartFrom::Earliest).await.unwrap();
    let claimed = engine
        .claim(&some_consumer(&group), 3, NEVER.into())
        .await
        .unwrap();
    let retry = Settlement {
        receipt: claimed.messages[0].receipt,
        outcome: Outcome::Retry {
            delay: Duration::ZERO,
            error: None,
        },
    };
    engine.settle(&group, Arc::from([retry])).await.unwrap();
    streams.seek("s", "g", StartFrom::Latest).await.unwrap();
    let late = Settlement {
        receipt: claimed.messages[1].receipt,
        outcome: Outcome::Acknowledged,
    };
    assert_eq!(
        engine.settle(&group, Arc::from([late])).await.unwrap(),
        [false]
    );
    let claimed = engine
        .claim(&some_consumer(&group), 3, NEVER.into())
        .await
        .unwrap();
    assert!(claimed.messages.is_empty());
    let ahead = StartFrom::After(MessageId::from_u64(6));
    let refused = streams.seek("s", "g", ahead).await.unwrap_err();
    assert!(matches!(refused, Error::StartAhead { .. }));
    let unknown = streams.seek("s", "unknown", StartFrom::Latest).await;
    assert!(matches!(unknown.unwrap_err(), Error::UnknownGroup));
}

/// A receipt of a group that was deleted fits nothing in a later one of the same name.
pub async fn receipts_of_a_deleted_group_are_stale(engine: Arc<dyn Engine>) {
    let streams = streams(engine.clone());
    streams.publish_batch("s", numbered(3)).await.unwrap();
    let group = key(&streams, "s", "g");
    engine
        .open_group(&group, StartFrom::Earliest)
        .await
        .unwrap();
    let before = engine
        .claim(&some_consumer(&group), 3, NEVER.into())
        .await
        .unwrap();
    assert!(engine.delete_group(&group).await.unwrap());
    engine
        .open_group(&group, StartFrom::Earliest)
        .await
        .unwrap();
    let after = engine
        .claim(&some_consumer(&group), 3, NEVER.into())
        .await
        .unwrap();
    assert_eq!(after.messages.len(), 3);
    let settlements = before.messages.iter().map(|it| Settlement {
        receipt: it.receipt,
        outcome: Outcome::Acknowledged,
    });
    let obeyed = engine.settle(&group, settlements.collect()).await.unwrap();
    assert_eq!(obeyed, [false; 3]);
    let stats = streams.stats("s").await.unwrap();
    assert_eq!(stats.groups[0].pending, 3);
}

/// A deleted stream leaves nothing: no message, group, key or pending message of it is in the one
/// that comes after it. Others are untouched.
pub async fn a_deleted_stream_begins_anew(engine: Arc<dyn Engine>) {
    let streams = streams(engine.clone());
    let keyed = || NewMessage::new("0").with_publish_key("k", NEVER);
    streams.publish("s", keyed()).await.unwrap();
    for _ in 0..3 {
        streams.publish_batch("s", numbered(1000)).await.unwrap();
    }
    streams
        .publish("s.dead", NewMessage::new("kept"))
        .await
        .unwrap();
    let group = key(&streams, "s", "g");
    engine
        .open_group(&group, StartFrom::Earliest)
        .await
        .unwrap();
    engine
        .claim(&some_consumer(&group), 10, NEVER.into())
        .await
        .unwrap();
    assert!(streams.delete_stream("s").await.unwrap());
    assert!(!streams.delete_stream("s").await.unwrap());
    assert_eq!(streams.stats("s").await.unwrap(), StreamStats::default());
    assert!(streams.read("s", None, 10).await.unwrap().is_empty());
    let claimed = engine.claim(&some_consumer(&group), 10, NEVER.into()).await;
    assert!(matches!(claimed.unwrap_err(), Error::UnknownGroup));
    let names = streams.list().await.unwrap();
    assert_eq!(names, ["s.dead"]);
    assert_eq!(streams.publish("s", keyed()).await.unwrap().as_u64(), 1);
    engine
        .open_group(&group, StartFrom::Earliest)
        .await
        .unwrap();
    let claimed = engine
        .claim(&some_consumer(&group), 10, NEVER.into())
        .await
        .unwrap();
    assert_eq!(claimed.messages.len(), 1);
    assert_eq!(streams.stats("s.dead").await.unwrap().messages, 1);
}

/// Streams are listed by their names, those of this application and namespace alone.
pub async fn streams_are_listed_in_order(engine: Arc<dyn Engine>) {
    let streams = streams(engine.clone());
    for name in ["b", "a", "B", "a.dead", "é", "100%", "a_b", "\u{10ffff}"] {
        streams.publish(name, NewMessage::new("")).await.unwrap();
    }
    // A group makes a stream, too.
    let group = key(&streams, "only read", "g");
    engine.open_group(&group, StartFrom::Latest).await.unwrap();
    let other = streams.clone().with_namespace("default2");
    other
        .publish("elsewhere", NewMessage::new(""))
        .await
        .unwrap();
    let names = streams.list().await.unwrap();
    let expected = [
        "100%",
        "B",
        "a",
        "a.dead",
        "a_b",
        "b",
        "only read",
        "é",
        "\u{10ffff}",
    ];
    assert_eq!(names, expected);
    // Other calls take these names.
    for name in &names {
        let published = u64::from(name != "only read");
        let stats = streams.stats(name).await.unwrap();
        assert_eq!(stats.messages, published, "{name}");
        assert!(streams.delete_stream(name).await.unwrap(), "{name}");
    }
    assert!(streams.list().await.unwrap().is_empty());
    assert_eq!(engine.list("").await.unwrap().len(), 1);
    let empty = Streams::new(engine, ServiceConfig::default().with_app("empty"));
    assert!(empty.list().await.unwrap().is_empty());
}

/// A stream is read page by page without a group, and nothing moves by it.
pub async fn a_stream_is_read_without_a_group(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    assert!(streams.read("s", None, 10).await.unwrap().is_empty());
    streams.publish_batch("s", numbered(25)).await.unwrap();
    let (mut read, mut after) = (Vec::new(), None);
    loop {
        let page = streams.read("s", after, 10).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        assert!(page.iter().all(|message| message.attempt == 0));
        read.extend(page.iter().map(number));
    }
    assert_eq!(read, (1..=25).collect::<Vec<_>>());
    for beyond in [25, 26, u64::MAX] {
        let after = Some(MessageId::from_u64(beyond));
        assert!(streams.read("s", after, 10).await.unwrap().is_empty());
    }
    let with_header = NewMessage::new("x").with_header("k", "v");
    let id = streams.publish("s", with_header.clone()).await.unwrap();
    let message = streams.read("s", after, 10).await.unwrap().remove(0);
    assert_eq!((message.id, &message.headers), (id, &with_header.headers));
}

/// What is pending is listed with who has it, for how long, and how often it was tried.
pub async fn pending_messages_are_listed(engine: Arc<dyn Engine>) {
    let streams = streams(engine.clone());
    streams.publish_batch("s", numbered(30)).await.unwrap();
    let group = key(&streams, "s", "g");
    assert!(matches!(
        streams.pending("s", "g", None, 10).await.unwrap_err(),
        Error::UnknownGroup
    ));
    engine
        .open_group(&group, StartFrom::Earliest)
        .await
        .unwrap();
    let named = |name: &str| ConsumerKey {
        group: group.clone(),
        consumer: name.into(),
    };
    let hour = Duration::from_secs(3600);
    let first = engine
        .claim(&named("first"), 10, hour.into())
        .await
        .unwrap();
    engine
        .claim(&named("second"), 10, hour.into())
        .await
        .unwrap();
    // 3 waits for its next attempt, 5 is on its second, 7 is done.
    let settle = |number: usize, outcome| Settlement {
        receipt: first.messages[number - 1].receipt,
        outcome,
    };
    let retry = |delay, error: &str| Outcome::Retry {
        delay,
        error: Some(error.to_owned()),
    };
    let settlements = [
        settle(3, retry(hour * 2, "three")),
        settle(5, retry(Duration::ZERO, "five")),
        settle(7, Outcome::Acknowledged),
    ];
    engine.settle(&group, Arc::from(settlements)).await.unwrap();
    engine
        .claim(&named("third"), 1, (hour * 3).into())
        .await
        .unwrap();

    let pending = streams.pending("s", "g", None, 100).await.unwrap();
    let ids: Vec<u64> = pending.iter().map(|message| message.id.as_u64()).collect();
    let expected: Vec<u64> = (1..=20).filter(|id| *id != 7).collect();
    assert_eq!(ids, expected);
    for message in &pending {
        let (consumer, attempts, due, error) = match message.id.as_u64() {
            3 => (None, 1, hour * 2, Some("three")),
            5 => (Some("third"), 2, hour * 3, Some("five")),
            1..=10 => (Some("first"), 1, hour, None),
            _ => (Some("second"), 1, hour, None),
        };
        assert_eq!(message.consumer.as_deref(), consumer);
        assert_eq!(
            (message.attempts, message.last_error.as_deref()),
            (attempts, error)
        );
        let minute = Duration::from_secs(60);
        assert!(message.age < minute, "{message:?}");
        assert!(
            message.due_in <= due && message.due_in + minute > due,
            "{message:?}"
        );
    }
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let page = streams.pending("s", "g", after, 4).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 4);
        after = Some(last.id);
        paged.extend(page.iter().map(|message| message.id.as_u64()));
    }
    assert_eq!(paged, expected);
}

/// Figures say where a group stands and what it has yet to finish.
pub async fn figures_say_where_a_group_stands(engine: Arc<dyn Engine>) {
    let streams = streams(engine.clone());
    let group = key(&streams, "s", "g");
    engine.open_group(&group, StartFrom::Latest).await.unwrap();
    let figures = async || {
        let stats = streams.stats("s").await.unwrap().groups.remove(0);
        let oldest = stats.oldest_unfinished.map(MessageId::as_u64);
        (stats.position.as_u64(), oldest, stats.lag, stats.pending)
    };
    assert_eq!(figures().await, (0, None, 0, 0));
    streams.publish_batch("s", numbered(6)).await.unwrap();
    assert_eq!(figures().await, (0, Some(1), 6, 0));
    // How far it is behind in time grows until the oldest message is done.
    let lag_time = async || streams.stats("s").await.unwrap().groups[0].lag_time;
    until(|| async { lag_time().await > Some(Duration::from_millis(2)) }).await;
    let claimed = engine
        .claim(&some_consumer(&group), 4, NEVER.into())
        .await
        .unwrap();
    assert_eq!(figures().await, (4, Some(1), 2, 4));
    let settle = async |numbers: &[usize], outcome: Outcome| {
        let settlements = numbers.iter().map(|number| Settlement {
            receipt: claimed.messages[number - 1].receipt,
            outcome: outcome.clone(),
        });
        engine.settle(&group, settlements.collect()).await.unwrap();
    };
    settle(&[1, 4], Outcome::Acknowledged).await;
    assert_eq!(figures().await, (4, Some(2), 2, 2));
    let retry = Outcome::Retry {
        delay: NEVER,
        error: None,
    };
    settle(&[2], retry).await;
    assert_eq!(figures().await, (4, Some(2), 2, 2));
    settle(&[3], Outcome::Acknowledged).await;
    assert_eq!(figures().await, (4, Some(2), 2, 1));
    streams.seek("s", "g", StartFrom::Latest).await.unwrap();
    assert_eq!(figures().await, (6, None, 0, 0));
    assert_eq!(lag_time().await, None);
}

/// Whether a claim would find something is known without one: new messages, what waits and what has
/// expired, once it is due. A group that is gone is to find out by its claim.
pub async fn readiness_is_what_a_claim_would_find(engine: Arc<dyn Engine>) {
    let streams = streams(engine.clone());
    let groups = ["g", "h", "gone"].map(|name| key(&streams, "s", name));
    for group in &groups[..2] {
        engine.open_group(group, StartFrom::Latest).await.unwrap();
    }
    let [g, ..] = &groups;
    let ready = async || engine.ready(Arc::from(groups.clone())).await.unwrap();
    assert_eq!(ready().await, [false, false, true]);
    streams.publish_batch("s", numbered(2)).await.unwrap();
    assert_eq!(ready().await, [true, true, true]);
    let claimed = engine
        .claim(&some_consumer(g), 2, NEVER.into())
        .await
        .unwrap();
    assert_eq!(ready().await, [false, true, true]);
    let retry = |index: usize, delay| {
        Arc::from([Settlement {
            receipt: claimed.messages[index].receipt,
            outcome: Outcome::Retry { delay, error: None },
        }])
    };
    engine.settle(g, retry(0, NEVER)).await.unwrap();
    assert_eq!(ready().await, [false, true, true]);
    engine.settle(g, retry(1, Duration::ZERO)).await.unwrap();
    until(|| async { ready().await == [true, true, true] }).await;
    let visibility = Duration::from_millis(50);
    let again = engine
        .claim(&some_consumer(g), 2, visibility.into())
        .await
        .unwrap();
    assert_eq!(again.messages.len(), 1);
    until(|| async { ready().await == [true, true, true] }).await;
    assert!(engine.ready(Arc::from([])).await.unwrap().is_empty());
}

/// The consumers of a group are known, in whatever process: those that are alive, and those that
/// hold messages and are not.
pub async fn members_are_listed(engine: Arc<dyn Engine>) {
    let streams = streams(engine.clone());
    let hold = |_: Message| std::future::pending::<Result<(), HandlerError>>();
    let options = from_start()
        .with_visibility_timeout(NEVER)
        .with_concurrency(3)
        .with_shutdown_timeout(Duration::ZERO);
    let consumer = subscribe(&streams, "s", "g", options, hold).await;
    let idle = subscribe(&streams, "s", "g", SubscribeOptions::default(), hold).await;
    idle.pause();
    streams.publish_batch("s", numbered(3)).await.unwrap();
    let members = async || streams.members("s", "g").await.unwrap();
    until(|| async { members().await.iter().any(|member| member.pending == 3) }).await;
    let mut expected = [(consumer.id(), true, 3), (idle.id(), true, 0)];
    expected.sort_unstable();
    let found = members().await;
    let found: Vec<_> = found
        .iter()
        .map(|member| (&*member.consumer, member.is_alive, member.pending))
        .collect();
    assert_eq!(found, expected);
    idle.close().await;
    consumer.close().await;
    assert!(members().await.is_empty());

    // One that never says that it is alive, and holds what it claimed.
    let group = key(&streams, "s", "g");
    engine
        .claim(&some_consumer(&group), 2, NEVER.into())
        .await
        .unwrap();
    let found = members().await;
    assert_eq!(found.len(), 1);
    assert_eq!(
        (&*found[0].consumer, found[0].is_alive, found[0].pending),
        ("one", false, 2)
    );
    let ttl = Duration::from_millis(50);
    engine
        .check_in(Arc::from([some_consumer(&group)]), NEVER)
        .await
        .unwrap();
    assert!(members().await[0].is_alive);
    engine
        .check_in(Arc::from([some_consumer(&group)]), ttl)
        .await
        .unwrap();
    until(|| async { !members().await[0].is_alive }).await;
    streams.trim().await.unwrap();
    assert_eq!(members().await.len(), 1);
    let unknown = key(&streams, "s", "unknown");
    engine
        .check_in(Arc::from([some_consumer(&unknown)]), ttl)
        .await
        .unwrap();
    let unknown = streams.members("s", "unknown").await;
    assert!(matches!(unknown.unwrap_err(), Error::UnknownGroup));
}
