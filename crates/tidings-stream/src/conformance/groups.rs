use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::support::{
    NEVER, contents, from_start, number, numbered, recorder, streams, subscribe, until,
};
use crate::engine::Engine;
use crate::{
    Error, HandlerError, Message, MessageId, NewMessage, Retention, StartFrom, SubscribeOptions,
};

/// Three members of a group handle a hundred messages, each message once.
pub async fn members_of_a_group_share_its_messages(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let (recorder, mut seen) = recorder();
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(subscribe(&streams, "s", "g", from_start(), recorder.clone()).await);
    }
    drop(recorder);
    streams.publish_batch("s", numbered(100)).await.unwrap();
    let numbers: BTreeSet<u64> = seen.numbers(100).await.into_iter().collect();
    assert_eq!(numbers, (1..=100).collect());
    for member in &members {
        member.close().await;
    }
    let names: BTreeSet<_> = members
        .iter()
        .map(|member| member.id().to_owned())
        .collect();
    assert_eq!(names.len(), 3);
    assert!(seen.rest().await.is_empty());
}

/// Two groups get all twenty messages each.
pub async fn every_group_gets_every_message(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let (first, mut first_seen) = recorder();
    let (second, mut second_seen) = recorder();
    let first = subscribe(&streams, "s", "one", from_start(), first).await;
    let second = subscribe(&streams, "s", "two", from_start(), second).await;
    streams.publish_batch("s", numbered(20)).await.unwrap();
    assert_eq!(first_seen.numbers(20).await, (1..=20).collect::<Vec<_>>());
    assert_eq!(second_seen.numbers(20).await, (1..=20).collect::<Vec<_>>());
    tokio::join!(first.close(), second.close());
}

/// By default a new group does not see what was there before it.
pub async fn a_group_starts_after_the_latest_message(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", numbered(3)).await.unwrap();
    let (recorder, mut seen) = recorder();
    let consumer = subscribe(&streams, "s", "g", SubscribeOptions::default(), recorder).await;
    streams.publish("s", NewMessage::new("4")).await.unwrap();
    assert_eq!(number(&seen.next().await), 4);
    consumer.close().await;
    assert!(seen.rest().await.is_empty());
}

/// A group that asks for it sees what was there before it.
pub async fn a_group_may_start_at_the_earliest_message(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", numbered(3)).await.unwrap();
    let (recorder, mut seen) = recorder();
    let consumer = subscribe(&streams, "s", "g", from_start(), recorder).await;
    assert_eq!(seen.numbers(3).await, [1, 2, 3]);
    consumer.close().await;
}

/// A start at an id excludes the message of that id.
pub async fn a_group_may_start_after_a_message(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let ids = streams.publish_batch("s", numbered(5)).await.unwrap();
    let (recorder, mut seen) = recorder();
    let options = from_start().with_start(StartFrom::After(ids[2]));
    let consumer = subscribe(&streams, "s", "g", options, recorder).await;
    assert_eq!(seen.numbers(2).await, [4, 5]);
    consumer.close().await;
    assert!(seen.rest().await.is_empty());
}

/// The start is only for a new group: one that exists continues where it was.
pub async fn a_group_that_exists_keeps_its_position(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", numbered(3)).await.unwrap();
    let (first, mut seen) = recorder();
    let consumer = subscribe(&streams, "s", "g", from_start(), first).await;
    seen.take(3).await;
    consumer.close().await;
    streams.publish("s", NewMessage::new("4")).await.unwrap();
    let first = MessageId::from_u64(1);
    let starts = [
        StartFrom::Latest,
        StartFrom::Earliest,
        StartFrom::After(first),
    ];
    for start in starts {
        let (recorder, mut seen) = recorder();
        let options = from_start().with_start(start);
        let consumer = subscribe(&streams, "s", "g", options, recorder).await;
        streams.publish("s", NewMessage::new("5")).await.unwrap();
        let expected = if start == StartFrom::Latest { 4 } else { 5 };
        assert_eq!(number(&seen.next().await), expected);
        if start == StartFrom::Latest {
            assert_eq!(number(&seen.next().await), 5);
        }
        consumer.close().await;
        assert!(seen.rest().await.is_empty());
    }
}

/// Starting after a message that does not exist yet would skip messages: it is refused.
pub async fn a_start_ahead_of_the_stream_is_refused(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", numbered(3)).await.unwrap();
    for ahead in [4, u64::MAX] {
        let (recorder, _) = recorder();
        let options = from_start().with_start(StartFrom::After(MessageId::from_u64(ahead)));
        let refused = streams.subscribe("s", "g", options, recorder).await;
        match refused.unwrap_err() {
            Error::StartAhead { start, newest } => {
                assert_eq!((start.as_u64(), newest.as_u64()), (ahead, 3));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(streams.stats("s").await.unwrap().groups.is_empty());
    // Nor does it make a stream.
    let ahead = StartFrom::After(MessageId::from_u64(1));
    let refused = streams.create_group("none", "g", ahead).await.unwrap_err();
    assert!(matches!(refused, Error::StartAhead { .. }), "{refused:?}");
    assert_eq!(streams.list().await.unwrap(), ["s"]);
}

/// A start at an id that is gone begins with what is left, and counts nothing as lost.
pub async fn a_start_that_was_trimmed_is_the_oldest_message(engine: Arc<dyn Engine>) {
    let streams = streams(engine).with_retention(Retention::default().with_max_len(2));
    let ids = streams.publish_batch("s", numbered(5)).await.unwrap();
    let (recorder, mut seen) = recorder();
    let options = from_start().with_start(StartFrom::After(ids[0]));
    let consumer = subscribe(&streams, "s", "g", options, recorder).await;
    assert_eq!(seen.numbers(2).await, [4, 5]);
    consumer.close().await;
    let stats = streams.stats("s").await.unwrap();
    assert_eq!(stats.groups[0].lost_to_trim, 0);
}

/// Groups that begin at the latest message, during publishing, see an unbroken rest of the
/// stream, with everything that was published after their subscription.
pub async fn nothing_published_after_subscribing_is_missed(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let publisher = {
        let streams = streams.clone();
        async move {
            let mut last = 0;
            while stopped.try_recv().is_err() {
                let id = streams.publish("s", NewMessage::new("")).await.unwrap();
                last = id.as_u64();
                tokio::task::yield_now().await;
            }
            last
        }
    };
    let subscriber = async {
        let mut groups = Vec::new();
        for group in 0..20 {
            let (recorder, seen) = recorder();
            let options = SubscribeOptions::default().with_concurrency(64);
            let consumer = subscribe(&streams, "s", &group.to_string(), options, recorder).await;
            let id = streams.publish("s", NewMessage::new("")).await.unwrap();
            groups.push((consumer, seen, id));
        }
        stop.send(()).unwrap();
        groups
    };
    let (last, groups) = tokio::join!(publisher, subscriber);
    for (consumer, mut seen, after) in groups {
        let newest = streams.stats("s").await.unwrap().newest.unwrap();
        assert!(newest.as_u64() >= last);
        let mut ids = BTreeSet::new();
        let wanted = newest.as_u64() - after.as_u64() + 1;
        while (ids.range(after..).count() as u64) < wanted {
            assert!(ids.insert(seen.next().await.id));
        }
        consumer.close().await;
        for message in seen.rest().await {
            assert!(ids.insert(message.id));
        }
        let unbroken: Vec<MessageId> = (ids.first().unwrap().as_u64()..=newest.as_u64())
            .map(MessageId::from_u64)
            .collect();
        assert!(ids.into_iter().eq(unbroken));
    }
}

/// Deleting a group forgets its position and what it has pending.
pub async fn a_deleted_group_begins_anew(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", numbered(2)).await.unwrap();
    let (recorder, mut seen) = recorder();
    let failing = {
        let recorder = recorder.clone();
        move |message: Message| {
            let recorder = recorder.clone();
            async move {
                recorder.note(message).await;
                Err(HandlerError::retry_after(NEVER, "not today"))
            }
        }
    };
    let consumer = subscribe(&streams, "s", "g", from_start(), failing).await;
    seen.take(2).await;
    consumer.close().await;
    assert!(streams.delete_group("s", "g").await.unwrap());
    assert!(!streams.delete_group("s", "g").await.unwrap());
    assert!(!streams.delete_group("unknown", "g").await.unwrap());
    let consumer = subscribe(&streams, "s", "g", from_start(), recorder).await;
    let again = seen.take(2).await;
    assert!(again.iter().all(|message| message.attempt == 1));
    consumer.close().await;
}

/// Lag, pending, dead letters and the ends of the stream are what they are.
pub async fn figures_are_exact(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    assert_eq!(
        streams.stats("s").await.unwrap(),
        crate::StreamStats::default()
    );
    streams.publish_batch("s", numbered(10)).await.unwrap();
    // 1 is acknowledged, 2 dies, 3 waits for a retry, 4 and 5 are being handled.
    let handler = |message: Message| async move {
        match number(&message) {
            1 => Ok(()),
            2 => Err(HandlerError::skip_retry("no")),
            3 => Err(HandlerError::retry_after(NEVER, "later")),
            _ => std::future::pending().await,
        }
    };
    let options = from_start()
        .with_concurrency(2)
        .with_shutdown_timeout(Duration::ZERO);
    let consumer = subscribe(&streams, "s", "b", options, handler).await;
    let (other, _seen) = recorder();
    let idle = subscribe(&streams, "s", "a", SubscribeOptions::default(), other).await;
    until(|| async {
        let stats = consumer.stats();
        let group = streams.stats("s").await.unwrap().groups.remove(1);
        stats.retried == 1 && group.lag == 5 && group.pending == 3
    })
    .await;
    let stats = streams.stats("s").await.unwrap();
    assert_eq!(stats.oldest, Some(MessageId::from_u64(1)));
    assert_eq!(stats.newest, Some(MessageId::from_u64(10)));
    assert_eq!(stats.messages, 10);
    let [a, b] = &stats.groups[..] else {
        panic!("{stats:?}")
    };
    assert_eq!((a.name.as_str(), a.lag, a.pending), ("a", 0, 0));
    assert_eq!((b.name.as_str(), b.dead_lettered), ("b", 1));
    assert_eq!((b.lag, b.pending, b.lost_to_trim), (5, 3, 0));
    assert_eq!(contents(&streams, "s.dead").await.len(), 1);
    let done = consumer.stats();
    assert_eq!(
        (done.acknowledged, done.retried, done.dead_lettered),
        (1, 1, 1)
    );
    tokio::join!(consumer.close(), idle.close());
}
