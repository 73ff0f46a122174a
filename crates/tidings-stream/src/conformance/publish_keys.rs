use std::sync::Arc;
use std::time::Duration;

use super::support::{contents, number, soon, streams};
use crate::engine::Engine;
use crate::{MessageId, NewMessage};

const HOUR: Duration = Duration::from_secs(60 * 60);

fn keyed(content: &str, key: &str, window: Duration) -> NewMessage {
    NewMessage::new(content.to_owned()).with_publish_key(key, window)
}

/// A second publish under the same key appends nothing and returns the first one's id, in the same
/// batch or a later one; it takes no number, and other streams have keys of their own.
pub async fn a_publish_key_appends_once(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let first = streams.publish("s", keyed("1", "k", HOUR)).await.unwrap();
    let again = streams.publish("s", keyed("9", "k", HOUR)).await.unwrap();
    assert_eq!(again, first);
    let batch = vec![
        NewMessage::new("2"),
        keyed("9", "k", HOUR),
        keyed("3", "K", HOUR),
        keyed("9", "K", HOUR),
        NewMessage::new("4"),
    ];
    let ids = streams.publish_batch("s", batch).await.unwrap();
    let ids: Vec<u64> = ids.into_iter().map(MessageId::as_u64).collect();
    assert_eq!(ids, [2, 1, 3, 3, 4]);
    let only_repeats = vec![keyed("9", "k", HOUR), keyed("9", "K", HOUR)];
    let ids = streams.publish_batch("s", only_repeats).await.unwrap();
    assert_eq!(ids, [1, 3].map(MessageId::from_u64));
    assert_eq!(
        streams
            .publish("s", NewMessage::new("5"))
            .await
            .unwrap()
            .as_u64(),
        5
    );
    let other = streams
        .publish("other", keyed("1", "k", HOUR))
        .await
        .unwrap();
    assert_eq!(other.as_u64(), 1);
    let kept = contents(&streams, "s").await;
    assert_eq!(kept.iter().map(number).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
}

/// In a large batch every other message repeats one that was published before, in an order of their own,
/// some repeat one of the same batch, and some have no key: each gets the id that it should.
pub async fn large_batches_of_repeats_get_their_ids(engine: Arc<dyn Engine>) {
    const COUNT: u64 = 2000;
    let streams = streams(engine);
    let key = |number: u64| keyed("", &format!("k{number}"), HOUR);
    let known: Vec<NewMessage> = (0..COUNT).map(key).collect();
    let known = streams.publish_batch("s", known).await.unwrap();
    let mut batch = Vec::new();
    let mut expected = Vec::new();
    let mut next = COUNT;
    let mut new = || {
        next += 1;
        MessageId::from_u64(next)
    };
    for number in 0..COUNT {
        let repeated = COUNT - 1 - number;
        batch.push(key(repeated));
        expected.push(known[usize::try_from(repeated).unwrap()]);
        batch.push(key(COUNT + number));
        expected.push(new());
        match number % 3 {
            0 => {
                batch.push(NewMessage::new(""));
                expected.push(new());
            }
            1 => {
                batch.push(key(COUNT + number));
                expected.push(expected[expected.len() - 1]);
            }
            _ => {}
        }
    }
    let ids = streams.publish_batch("s", batch.clone()).await.unwrap();
    assert_eq!(ids, expected);
    // All of it again: only what has no key is new.
    let again: Vec<MessageId> = batch
        .iter()
        .zip(expected)
        .map(|(message, id)| match &message.publish_key {
            Some(_) => id,
            None => new(),
        })
        .collect();
    assert_eq!(streams.publish_batch("s", batch).await.unwrap(), again);
    let kept = streams.stats("s").await.unwrap();
    assert_eq!(kept.newest, again.iter().max().copied());
}

/// Large batches of the same keys that are published at the same time are appended once.
pub async fn concurrent_batches_of_one_set_of_keys_append_once(engine: Arc<dyn Engine>) {
    const COUNT: usize = 1500;
    let streams = streams(engine);
    let publishers: Vec<_> = (0..4)
        .map(|shift| {
            let streams = streams.clone();
            let key =
                move |number: usize| keyed("", &((number + shift * 400) % COUNT).to_string(), HOUR);
            let batch: Vec<NewMessage> = (0..COUNT).map(key).collect();
            let published = async move { streams.publish_batch("s", batch).await };
            (shift, tokio::spawn(published))
        })
        .collect();
    let mut ids_of_keys: Option<Vec<MessageId>> = None;
    for (shift, publisher) in publishers {
        let mut ids = publisher.await.unwrap().unwrap();
        ids.rotate_right(shift * 400 % COUNT);
        let first = ids_of_keys.get_or_insert_with(|| ids.clone());
        assert_eq!(*first, ids);
    }
    assert_eq!(streams.stats("s").await.unwrap().messages, COUNT as u64);
}

/// Once its window has passed, a key is as good as new, with or without the janitor.
pub async fn a_publish_key_is_free_after_its_window(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let window = Duration::from_millis(50);
    let published = streams.publish("s", keyed("", "k", window)).await.unwrap();
    let mut last = published;
    for round in 1..=2 {
        last = soon(async {
            loop {
                let id = streams.publish("s", keyed("", "k", window)).await.unwrap();
                if id != last {
                    break id;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert_eq!(last.as_u64(), published.as_u64() + round);
        streams.trim().await.unwrap();
    }
    // The window counts from the first publish, and the janitor leaves open ones alone.
    let kept = streams.publish("s", keyed("", "kept", HOUR)).await.unwrap();
    streams.trim().await.unwrap();
    assert_eq!(
        streams.publish("s", keyed("", "kept", HOUR)).await.unwrap(),
        kept
    );
}

/// Callers that publish at the same time under one key get the same id.
pub async fn concurrent_publishes_under_one_key_append_once(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let publishers: Vec<_> = (0..32)
        .map(|_| {
            let streams = streams.clone();
            tokio::spawn(async move { streams.publish("s", keyed("", "k", HOUR)).await })
        })
        .collect();
    for publisher in publishers {
        assert_eq!(publisher.await.unwrap().unwrap().as_u64(), 1);
    }
    assert_eq!(streams.stats("s").await.unwrap().messages, 1);
}
