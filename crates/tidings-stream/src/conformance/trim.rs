use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::support::{
    NEVER, contents, from_start, key, number, numbered, recorder, some_consumer, streams,
    subscribe, until,
};
use crate::engine::Engine;
use crate::{HandlerError, Message, NewMessage, Retention, ServiceConfig, StartFrom, Streams};

/// Of twenty messages exactly the bound is left, by whole batches and one by one.
pub async fn trimming_by_length_keeps_the_newest(engine: Arc<dyn Engine>) {
    let streams = streams(engine).with_retention(Retention::default().with_max_len(5));
    streams.publish_batch("batch", numbered(20)).await.unwrap();
    for message in numbered(20) {
        streams.publish("single", message).await.unwrap();
    }
    for stream in ["batch", "single"] {
        let left: Vec<u64> = contents(&streams, stream)
            .await
            .iter()
            .map(number)
            .collect();
        assert_eq!(left, [16, 17, 18, 19, 20]);
    }
}

/// A stream of which no retention was ever given keeps everything, read or not.
pub async fn everything_is_kept_by_default(engine: Arc<dyn Engine>) {
    let config = ServiceConfig::default().with_janitor_interval(Duration::from_millis(1));
    let streams = Streams::new(engine, config);
    let (recorder, mut seen) = recorder();
    let consumer = subscribe(&streams, "s", "g", from_start(), recorder).await;
    streams.publish_batch("s", numbered(200)).await.unwrap();
    seen.take(200).await;
    consumer.close().await;
    streams.publish("s", NewMessage::new("")).await.unwrap();
    assert_eq!(streams.trim().await.unwrap(), 0);
    let stats = streams.stats("s").await.unwrap();
    assert_eq!((stats.messages, stats.oldest.unwrap().as_u64()), (201, 1));
}

/// What has passed the age goes with a later publish, and nothing before that.
pub async fn trimming_by_age_removes_the_old(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", numbered(3)).await.unwrap();
    let hour = Retention::default().with_max_age(Duration::from_secs(60 * 60));
    streams.set_retention("s", hour).await.unwrap();
    assert_eq!(streams.trim().await.unwrap(), 0);
    assert_eq!(streams.stats("s").await.unwrap().messages, 3);
    let aging = streams
        .clone()
        // Longer than publishing takes on a machine with much to do: others trim as well.
        .with_retention(Retention::default().with_max_age(Duration::from_millis(500)));
    let begin = Timestamp::now();
    loop {
        let newest = aging.publish("s", NewMessage::new("4")).await.unwrap();
        let stats = aging.stats("s").await.unwrap();
        assert_eq!(stats.newest, Some(newest));
        if stats.oldest.unwrap().as_u64() > 3 {
            return;
        }
        // The age is of the wall clock, and that of the runtime may be paused.
        let waited = Timestamp::now().duration_since(begin);
        assert!(waited < SignedDuration::from_mins(1), "nothing was trimmed");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A publish with a retention sets it: a later one may lift it. A publish without one leaves it alone.
pub async fn the_last_retention_wins(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let bounded = streams
        .clone()
        .with_retention(Retention::default().with_max_len(2));
    bounded.publish_batch("s", numbered(4)).await.unwrap();
    assert_eq!(streams.stats("s").await.unwrap().messages, 2);
    for message in numbered(3) {
        streams.publish("s", message).await.unwrap();
        assert_eq!(streams.stats("s").await.unwrap().messages, 2);
    }
    let unbounded = streams.clone().with_retention(Retention::default());
    unbounded.publish_batch("s", numbered(4)).await.unwrap();
    assert_eq!(streams.stats("s").await.unwrap().messages, 6);
    assert_eq!(streams.trim().await.unwrap(), 0);
    bounded.publish("s", NewMessage::new("")).await.unwrap();
    assert_eq!(streams.stats("s").await.unwrap().messages, 2);
}

/// The retention can be set by itself: it trims what is there, and what comes without a word about
/// retention is kept by it.
pub async fn retention_can_be_set_without_a_publish(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let two = Retention::default().with_max_len(2);
    streams.set_retention("s", two).await.unwrap();
    assert_eq!(streams.stats("s").await.unwrap().messages, 0);
    let first = streams.publish_batch("s", numbered(4)).await.unwrap();
    assert_eq!(first[0].as_u64(), 1);
    streams.set_retention("s", two).await.unwrap();
    let stats = streams.stats("s").await.unwrap();
    assert_eq!((stats.messages, stats.newest), (2, Some(first[3])));
}

/// A stream that is not published to any more is trimmed all the same.
pub async fn the_janitor_trims_without_a_publish(engine: Arc<dyn Engine>) {
    let config = ServiceConfig::default()
        .with_janitor_interval(Duration::from_millis(20))
        .with_retention(Retention::default().with_max_age(Duration::from_millis(20)));
    let streams = Streams::new(engine, config);
    streams.publish_batch("s", numbered(3)).await.unwrap();
    until(|| async { streams.stats("s").await.unwrap().messages == 0 }).await;
    let stats = streams.stats("s").await.unwrap();
    assert_eq!((stats.oldest, stats.newest), (None, None));
    assert_eq!(
        streams
            .publish("s", NewMessage::new(""))
            .await
            .unwrap()
            .as_u64(),
        4
    );
    streams.close().await;
}

/// What a group has claimed, has to retry or has not read is kept beyond the bound, and goes once
/// the group is done with it.
pub async fn a_pending_message_is_not_trimmed(engine: Arc<dyn Engine>) {
    let streams = streams(engine.clone()).with_retention(Retention::default().with_max_len(1));
    let (recorder, mut seen) = recorder();
    let options = from_start();
    let handler = move |message: Message| {
        let recorder = recorder.clone();
        async move {
            let attempt = message.attempt;
            recorder.note(message).await;
            if attempt == 1 {
                return Err(HandlerError::retry_after(Duration::ZERO, "again"));
            }
            Ok(())
        }
    };
    let key = key(&streams, "s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    streams.publish_batch("s", numbered(3)).await.unwrap();
    assert_eq!(streams.trim().await.unwrap(), 0);
    let claimed = engine
        .claim(&some_consumer(&key), 1, Duration::from_millis(10).into())
        .await
        .unwrap();
    assert_eq!(claimed.messages.len(), 1);
    assert_eq!(streams.trim().await.unwrap(), 0);

    let consumer = subscribe(&streams, "s", "g", options, handler).await;
    let mut numbers = seen.numbers(5).await;
    numbers.sort_unstable();
    assert_eq!(
        numbers,
        [1, 2, 2, 3, 3],
        "number 1 had its first attempt before"
    );
    until(|| async { consumer.stats().acknowledged == 3 }).await;
    consumer.close().await;
    assert_eq!(streams.trim().await.unwrap(), 2);
    let stats = streams.stats("s").await.unwrap();
    assert_eq!((stats.messages, stats.groups[0].lost_to_trim), (1, 0));
}

/// With the protection lifted, a message that is trimmed while a group retries it is counted as
/// lost, and the group continues.
pub async fn regression_a_trimmed_pending_message_does_not_stop_its_group(engine: Arc<dyn Engine>) {
    let hard = Retention::default().with_max_len(2).with_pending_trimmed();
    let streams = streams(engine).with_retention(hard);
    let (recorder, mut seen) = recorder();
    let handler = move |message: Message| {
        let recorder = recorder.clone();
        async move {
            let first = message.id.as_u64() == 1;
            recorder.note(message).await;
            if first {
                return Err(HandlerError::retry_after(NEVER, "later"));
            }
            Ok(())
        }
    };
    let consumer = subscribe(&streams, "s", "g", from_start(), handler).await;
    streams.publish("s", NewMessage::new("1")).await.unwrap();
    seen.next().await;
    until(|| async { consumer.stats().retried == 1 }).await;
    for message in numbered(50) {
        streams.publish("s", message).await.unwrap();
        seen.next().await;
    }
    until(|| async {
        let group = streams.stats("s").await.unwrap().groups.remove(0);
        group.lost_to_trim == 1 && group.pending == 0 && group.lag == 0
    })
    .await;
    streams.publish("s", NewMessage::new("51")).await.unwrap();
    assert_eq!(number(&seen.next().await), 51);
    consumer.close().await;
}

/// With the protection lifted, messages that no handler has seen are counted when they go.
pub async fn unread_messages_that_are_trimmed_are_counted(engine: Arc<dyn Engine>) {
    let hard = Retention::default().with_max_len(2).with_pending_trimmed();
    let streams = streams(engine.clone()).with_retention(hard);
    let key = key(&streams, "s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    streams.publish_batch("s", numbered(3)).await.unwrap();
    let claimed = engine
        .claim(&some_consumer(&key), 1, NEVER.into())
        .await
        .unwrap();
    assert_eq!(
        number(&claimed.messages[0].message),
        2,
        "1 was trimmed unread"
    );
    let lost = async || {
        let stats = streams.stats("s").await.unwrap();
        stats.groups[0].lost_to_trim
    };
    assert_eq!(lost().await, 1, "counted when it went");
    streams
        .publish_batch("s", numbered(6).split_off(3))
        .await
        .unwrap();
    assert_eq!(lost().await, 3, "no claim is needed for that");
    // Claiming the rest meets the gap; the message that was claimed is in hand.
    let claimed = engine
        .claim(&some_consumer(&key), 9, NEVER.into())
        .await
        .unwrap();
    let numbers: Vec<u64> = claimed
        .messages
        .iter()
        .map(|d| number(&d.message))
        .collect();
    assert_eq!(numbers, [5, 6]);
    let group = streams.stats("s").await.unwrap().groups.remove(0);
    assert_eq!((group.lost_to_trim, group.pending, group.lag), (3, 3, 0));
}
