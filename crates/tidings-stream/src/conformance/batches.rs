use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use super::support::{
    NEVER, extended, from_start, number, numbered, recorder, soon, streams, subscribe, until,
};
use crate::dead_letter;
use crate::engine::Engine;
use crate::{BatchError, HandlerError, Message, RetryDelay, StartFrom};

/// Every message comes once, in batches of up to the size that was asked for and in order; what is
/// there does not wait for more.
pub async fn batches_hold_what_is_there(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", numbered(250)).await.unwrap();
    let (sender, mut batches) = mpsc::channel(64);
    let options = from_start().with_max_batch(100).with_poll_interval(NEVER);
    let consumer = streams
        .subscribe_batch("s", "g", options, move |messages: Vec<Message>| {
            let sender = sender.clone();
            async move {
                sender.send(messages).await?;
                Ok(())
            }
        })
        .await
        .unwrap();
    let mut numbers = Vec::new();
    while numbers.len() < 250 {
        let batch = soon(batches.recv()).await.unwrap();
        assert!((1..=100).contains(&batch.len()));
        numbers.extend(batch.iter().map(number));
    }
    assert_eq!(numbers, (1..=250).collect::<Vec<_>>());
    streams.publish_batch("s", numbered(1)).await.unwrap();
    assert_eq!(soon(batches.recv()).await.unwrap().len(), 1);
    until(|| async { consumer.stats().acknowledged == 251 }).await;
    consumer.close().await;
}

/// Of a batch, those that failed come again or die, each by its own verdict, and the rest is done.
pub async fn a_batch_fails_in_part(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", numbered(100)).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let options = from_start()
        .with_max_batch(100)
        .with_retry_delay(RetryDelay::fixed(Duration::ZERO));
    let consumer = streams
        .subscribe_batch("s", "g", options, move |messages: Vec<Message>| {
            let mut failed = BatchError::none();
            for message in &messages {
                noted
                    .lock()
                    .unwrap()
                    .push((number(message), message.attempt));
                match (number(message) % 10, message.attempt) {
                    (3, 1) => failed.push(message.id, HandlerError::retry("once more")),
                    (7, _) => failed.push(message.id, HandlerError::skip_retry("never")),
                    _ => {}
                }
            }
            async move { failed.into_result() }
        })
        .await
        .unwrap();
    until(|| async { consumer.stats().acknowledged == 90 }).await;
    until(|| async { consumer.stats().dead_lettered == 10 }).await;
    assert_eq!(consumer.stats().retried, 10);
    consumer.close().await;
    let seen: BTreeSet<_> = seen.lock().unwrap().iter().copied().collect();
    let once = (1..=100).map(|number| (number, 1));
    let twice = (0..10).map(|tens| (tens * 10 + 3, 2));
    assert_eq!(seen, once.chain(twice).collect());
    let letters = streams.read("s.dead", None, 100).await.unwrap();
    let numbers: BTreeSet<u64> = letters.iter().map(number).collect();
    assert_eq!(numbers, (0..10).map(|tens| tens * 10 + 7).collect());
}

/// A batch that fails, panics or runs out of time as a whole comes again as a whole.
pub async fn a_batch_that_fails_comes_again_whole(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", numbered(10)).await.unwrap();
    let options = from_start()
        .with_max_batch(10)
        .with_handler_timeout(Duration::from_millis(50))
        .with_retry_delay(RetryDelay::fixed(Duration::ZERO));
    let consumer = streams
        .subscribe_batch("s", "g", options, |messages: Vec<Message>| async move {
            match messages[0].attempt {
                1 => Err(HandlerError::retry("failed").into()),
                2 => panic!("panicked"),
                3 => std::future::pending().await,
                _ => Ok(()),
            }
        })
        .await
        .unwrap();
    until(|| async { consumer.stats().acknowledged == 10 }).await;
    assert_eq!(consumer.stats().retried, 30);
    consumer.close().await;
    assert_eq!(streams.stats("s.dead").await.unwrap().messages, 0);
}

/// While a batch is handled, the claims of all its messages are extended.
pub async fn a_long_batch_keeps_its_messages(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", numbered(20)).await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&gate);
    let options = from_start()
        .with_max_batch(20)
        .with_concurrency(2)
        // Two thirds of it are what the process may stand still for.
        .with_visibility_timeout(Duration::from_secs(5))
        .with_handler_timeout(NEVER);
    let consumer = streams
        .subscribe_batch("s", "g", options, move |messages: Vec<Message>| {
            let waiting = Arc::clone(&waiting);
            async move {
                assert!(messages.iter().all(|message| message.attempt == 1));
                drop(waiting.acquire().await?);
                Ok(())
            }
        })
        .await
        .unwrap();
    until(|| async { streams.stats("s").await.unwrap().groups[0].pending == 20 }).await;
    // The claims that it began with have ended then.
    extended(&streams, 4).await;
    gate.add_permits(1);
    until(|| async { consumer.stats().acknowledged == 20 }).await;
    assert_eq!(consumer.stats().retried, 0);
    consumer.close().await;
}

/// A paused consumer claims nothing, and what came meanwhile is there when it continues; the others
/// of its group are not held up.
pub async fn a_paused_consumer_claims_nothing(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let (paused_recorder, mut paused_seen) = recorder();
    let paused = subscribe(&streams, "s", "g", from_start(), paused_recorder).await;
    streams.publish_batch("s", numbered(1)).await.unwrap();
    assert_eq!(paused_seen.numbers(1).await, [1]);
    until(|| async { paused.stats().acknowledged == 1 }).await;
    paused.pause();
    assert!(paused.is_paused());
    // A claim that had begun before the pause may bring one more; after it there is silence.
    let (other_recorder, _other_seen) = recorder();
    let other = subscribe(&streams, "s", "g", from_start(), other_recorder).await;
    streams.publish_batch("s", numbered(50)).await.unwrap();
    until(|| async { paused.stats().acknowledged + other.stats().acknowledged == 51 }).await;
    assert!(paused.stats().acknowledged <= 2);
    other.close().await;
    let before = paused.stats().acknowledged;
    streams.publish_batch("s", numbered(5)).await.unwrap();
    assert_eq!(streams.stats("s").await.unwrap().groups[0].lag, 5);
    paused.resume();
    until(|| async { paused.stats().acknowledged == before + 5 }).await;
    paused.pause();
    paused.close().await;
}

/// Dead letters go back to where they came from, as they were, each once; what is no letter stays.
pub async fn dead_letters_are_brought_back(engine: Arc<dyn Engine>) {
    use crate::{NewMessage, Redrive};
    let streams = streams(engine);
    let original = NewMessage::new("1").with_header("customer", "eve");
    streams.publish("s", original.clone()).await.unwrap();
    streams.publish_batch("s", numbered(4)).await.unwrap();
    let bury = |_: Message| async { Err(HandlerError::skip_retry("not today")) };
    let consumer = subscribe(&streams, "s", "g", from_start(), bury).await;
    until(|| async { consumer.stats().dead_lettered == 5 }).await;
    consumer.close().await;
    streams
        .publish("s.dead", NewMessage::new("no letter"))
        .await
        .unwrap();

    let one = streams
        .redrive("s.dead", Redrive::default().with_limit(1))
        .await
        .unwrap();
    assert_eq!((one.moved, one.skipped), (1, 0));
    let (left, right) = tokio::join!(
        streams.redrive("s.dead", Redrive::default()),
        streams.redrive("s.dead", Redrive::default()),
    );
    let (left, right) = (left.unwrap(), right.unwrap());
    assert_eq!(left.moved + right.moved, 4);
    // One may end before the other begins.
    assert!((1..=2).contains(&(left.skipped + right.skipped)));
    let again = streams.redrive("s.dead", Redrive::default()).await.unwrap();
    assert_eq!((again.moved, again.skipped), (0, 1));

    let brought_back = streams.read("s", None, 100).await.unwrap().split_off(5);
    assert_eq!(brought_back.len(), 5);
    let first = &brought_back[0];
    assert_eq!(
        (&first.payload, &first.headers),
        (&original.payload, &original.headers)
    );
    assert!(
        brought_back
            .iter()
            .all(|m| !m.headers.contains_key(dead_letter::STREAM))
    );

    // Once more, elsewhere.
    let again = StartFrom::Earliest;
    streams
        .seek("s.dead", "tidings.redrive", again)
        .await
        .unwrap();
    let elsewhere = Redrive::default().with_target("elsewhere");
    assert_eq!(streams.redrive("s.dead", elsewhere).await.unwrap().moved, 6);
    assert_eq!(streams.stats("elsewhere").await.unwrap().messages, 6);
    let itself = Redrive::default().with_target("s.dead");
    let refused = streams.redrive("s.dead", itself).await.unwrap_err();
    assert!(matches!(
        refused,
        crate::Error::InvalidOption {
            field: "target",
            ..
        }
    ));
}

/// A stream whose messages do not say where they came from is refused, and stays as it was. One that is empty,
/// or that no letter has made yet, has nothing to bring back, and stays so as well.
pub async fn regression_a_refused_redrive_leaves_nothing(engine: Arc<dyn Engine>) {
    use crate::{Error, Redrive, Redriven, Retention};
    let streams = streams(engine);
    let redrive = |stream| streams.redrive(stream, Redrive::default());
    let nothing = Redriven::default();
    assert_eq!(redrive("unknown").await.unwrap(), nothing);
    let elsewhere = Redrive::default().with_target("elsewhere");
    let unknown = streams.redrive("unknown", elsewhere).await;
    assert_eq!(unknown.unwrap(), nothing);
    assert!(streams.list().await.unwrap().is_empty());

    let ten = Retention::default().with_max_len(10);
    streams.set_retention("empty", ten).await.unwrap();
    assert_eq!(redrive("empty").await.unwrap(), nothing);
    assert!(streams.stats("empty").await.unwrap().groups.is_empty());

    streams.publish_batch("s", numbered(250)).await.unwrap();
    let refused = redrive("s").await.unwrap_err();
    let is_about_target = matches!(
        refused,
        Error::InvalidOption {
            field: "target",
            ..
        }
    );
    assert!(is_about_target, "{refused:?}");
    assert!(streams.stats("s").await.unwrap().groups.is_empty());
}

/// What has been brought back, or will be, does not keep the dead-letter stream from being trimmed.
pub async fn regression_redriving_keeps_no_letter_from_being_trimmed(engine: Arc<dyn Engine>) {
    use crate::{NewMessage, Redrive, Retention};
    let streams = streams(engine);
    let ten = Retention::default().with_max_len(10);
    streams.set_retention("s.dead", ten).await.unwrap();
    let bury = |_: Message| async { Err(HandlerError::skip_retry("not today")) };
    let consumer = subscribe(&streams, "s", "g", from_start(), bury).await;
    streams.publish("s", NewMessage::new("")).await.unwrap();
    until(|| async { consumer.stats().dead_lettered == 1 }).await;
    consumer.pause();
    let redriven = streams.redrive("s.dead", Redrive::default()).await.unwrap();
    assert_eq!(redriven.moved, 1);
    consumer.resume();
    streams.publish_batch("s", numbered(50)).await.unwrap();
    until(|| async { consumer.stats().dead_lettered == 52 }).await;
    consumer.close().await;
    let stats = streams.stats("s.dead").await.unwrap();
    assert_eq!(stats.messages, 10);
    // The group knows what it has missed, and brings back the rest.
    let group = &stats.groups[0];
    assert_eq!((group.lost_to_trim, group.lag), (41, 10));
    let redriven = streams.redrive("s.dead", Redrive::default()).await.unwrap();
    assert_eq!(redriven.moved, 10);
}
