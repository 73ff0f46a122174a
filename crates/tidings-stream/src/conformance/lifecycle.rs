use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::RuntimeFlavor;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::support::{
    NEVER, Recorder, from_start, key, numbered, recorder, some_consumer, soon, streams, subscribe,
    until,
};
use crate::engine::Engine;
use crate::{Consumer, EndReason, Error, Handler, HandlerError, Message, NewMessage};

/// Records every message, then waits for a permit of the gate.
fn gated(recorder: Recorder, gate: Arc<Semaphore>) -> impl Handler {
    move |message: Message| {
        let (recorder, gate) = (recorder.clone(), Arc::clone(&gate));
        async move {
            recorder.note(message).await;
            gate.acquire().await?.forget();
            Ok(())
        }
    }
}

/// Handlers that end while their consumer closes are recorded, and nothing comes again.
pub async fn closing_lets_running_handlers_acknowledge(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", numbered(10)).await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let (first, mut seen) = recorder();
    let options = from_start().with_concurrency(10);
    let consumer = subscribe(&streams, "s", "g", options, gated(first, gate.clone())).await;
    seen.take(10).await;
    let mut closing = pin!(consumer.close());
    begin(&mut closing).await;
    gate.add_permits(10);
    let report = soon(closing).await;
    assert_eq!(
        (report.finished, report.released, report.abandoned),
        (10, 0, 0)
    );
    let group = streams.stats("s").await.unwrap().groups.remove(0);
    assert_eq!((group.lag, group.pending), (0, 0));
    assert_eq!(
        consumer.close().await,
        report,
        "a second call returns the same"
    );
}

/// Of a claim of sixteen messages, the first handler begins the closing: the others do not start,
/// and their messages go back with the attempt unchanged.
pub async fn no_handler_starts_once_closing_has_begun(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let (first, seen) = recorder();
    let slot = Arc::new(OnceLock::<Consumer>::new());
    let handler = {
        let slot = Arc::clone(&slot);
        move |message: Message| {
            let (first, slot) = (first.clone(), Arc::clone(&slot));
            async move {
                begin(&mut pin!(slot.get().unwrap().close())).await;
                first.note(message).await;
                Ok(())
            }
        }
    };
    let options = from_start().with_concurrency(16);
    let consumer = subscribe(&streams, "s", "g", options.clone(), handler).await;
    slot.set(consumer).unwrap();
    streams.publish_batch("s", numbered(16)).await.unwrap();
    let report = soon(async {
        while slot.get().unwrap().stats().acknowledged == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        slot.get().unwrap().close().await
    })
    .await;
    let stats = slot.get().unwrap().stats();
    drop(slot);
    let begun = seen.rest().await.len() as u64;
    assert_eq!(report.finished, begun);
    assert_eq!((report.released, report.abandoned), (16 - begun, 0));
    assert_eq!(
        (stats.acknowledged, stats.stale, stats.retried),
        (begun, 0, 0)
    );
    // On several threads some handlers start side by side with the first.
    if tokio::runtime::Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        assert_eq!(begun, 1);
    }

    let (second, mut seen) = recorder();
    let consumer = subscribe(&streams, "s", "g", options, second).await;
    for message in seen.take(usize::try_from(16 - begun).unwrap()).await {
        assert_eq!(message.attempt, 1);
    }
    consumer.close().await;
    assert!(seen.rest().await.is_empty());
}

/// Polls a future once, so that it begins; it must not end yet.
async fn begin<F: Future>(future: &mut Pin<&mut F>) {
    let first_poll = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context)));
    assert!(first_poll.await.is_pending());
}

/// A handler that does not end is dropped at the deadline, and its message comes again at once.
pub async fn closing_gives_up_at_its_deadline(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish("s", NewMessage::new("")).await.unwrap();
    let (first, mut seen) = recorder();
    let hanging = gated(first, Arc::new(Semaphore::new(0)));
    let options = from_start().with_shutdown_timeout(Duration::from_millis(50));
    let consumer = subscribe(&streams, "s", "g", options, hanging).await;
    seen.next().await;
    let before = Instant::now();
    let report = soon(consumer.close()).await;
    assert!(before.elapsed() < Duration::from_secs(10));
    assert_eq!((report.finished, report.abandoned), (0, 1));
    let (second, mut seen) = recorder();
    let consumer = subscribe(&streams, "s", "g", from_start(), second).await;
    assert_eq!(seen.next().await.attempt, 2);
    consumer.close().await;
}

/// Twenty consumers close side by side; what is called afterwards returns the same error.
pub async fn consumers_close_together_and_calls_reply_closed(engine: Arc<dyn Engine>) {
    const TIMEOUT: Duration = Duration::from_millis(500);
    let streams = streams(engine);
    let (first, mut seen) = recorder();
    let mut consumers = Vec::new();
    for index in 0..20 {
        let stream = format!("s{index}");
        streams.publish(&stream, NewMessage::new("")).await.unwrap();
        let hanging = gated(first.clone(), Arc::new(Semaphore::new(0)));
        let options = from_start().with_shutdown_timeout(TIMEOUT);
        consumers.push(subscribe(&streams, &stream, "g", options, hanging).await);
    }
    seen.take(20).await;
    let before = Instant::now();
    let report = soon(streams.close()).await;
    assert!(before.elapsed() < TIMEOUT * 10, "{:?}", before.elapsed());
    assert_eq!(report.abandoned, 20);
    assert_eq!(streams.close().await, report);
    let publish = streams.publish("s", NewMessage::new("")).await;
    assert!(matches!(publish, Err(Error::Closed)));
    let batch = streams.clone().publish_batch("s", numbered(2)).await;
    assert!(matches!(batch, Err(Error::Closed)));
    let subscribed = streams.subscribe("s", "g", from_start(), first).await;
    assert!(matches!(subscribed, Err(Error::Closed)));
}

/// Subscribing and closing again and again leaves no task behind.
pub async fn a_thousand_subscriptions_leave_nothing_behind(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish("s", NewMessage::new("")).await.unwrap();
    let runtime = tokio::runtime::Handle::current();
    let before = runtime.metrics().num_alive_tasks();
    for _ in 0..1000 {
        let (recorder, _) = recorder();
        let consumer = subscribe(&streams, "s", "g", from_start(), recorder).await;
        consumer.close().await;
    }
    until(|| async { runtime.metrics().num_alive_tasks() <= before }).await;
    assert_eq!(streams.stats("s").await.unwrap().groups.len(), 1);
}

/// With polling as good as off, every group of a stream hears of every message.
pub async fn one_publish_wakes_every_group(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let options = from_start().with_poll_interval(NEVER).with_concurrency(8);
    let mut groups = Vec::new();
    for group in ["a", "b", "c"] {
        let (recorder, seen) = recorder();
        let consumer = subscribe(&streams, "Upper.Case", group, options.clone(), recorder).await;
        groups.push((consumer, seen));
    }
    for message in numbered(100) {
        streams.publish("Upper.Case", message).await.unwrap();
        for (_, seen) in &mut groups {
            seen.next().await;
        }
    }
    for (consumer, seen) in groups {
        assert!(seen.is_quiet());
        consumer.close().await;
    }
}

/// With polling as good as off, a message that comes back is found: by the consumer that gave it back, and by
/// the other members of its group.
pub async fn a_returned_message_wakes_its_group(engine: Arc<dyn Engine>) {
    let streams = streams(engine.clone());
    let (first, mut seen) = recorder();
    // A free handler beside the busy one, so that the subscription is waiting when it comes back.
    let options = from_start()
        .with_poll_interval(NEVER)
        .with_visibility_timeout(NEVER)
        .with_concurrency(2);
    let again = move |message: Message| {
        let first = first.clone();
        async move {
            let attempt = message.attempt;
            first.note(message).await;
            if attempt < 3 {
                return Err(HandlerError::retry_after(Duration::from_millis(5), "again"));
            }
            Ok(())
        }
    };
    let consumer = subscribe(&streams, "s", "g", options, again).await;
    streams.publish("s", NewMessage::new("")).await.unwrap();
    assert_eq!(seen.next().await.attempt, 1);
    assert_eq!(seen.next().await.attempt, 2);
    assert_eq!(seen.next().await.attempt, 3);

    // A claim that expires is reported by no consumer.
    let abandoned = key(&streams, "s2", "g");
    engine
        .open_group(&abandoned, crate::StartFrom::Earliest)
        .await
        .unwrap();
    streams.publish("s2", NewMessage::new("")).await.unwrap();
    let claimed = engine
        .claim(
            &some_consumer(&abandoned),
            1,
            Duration::from_millis(50).into(),
        )
        .await
        .unwrap();
    assert_eq!(claimed.messages.len(), 1);
    let (second, mut seen) = recorder();
    let options = from_start().with_poll_interval(NEVER);
    let other = subscribe(&streams, "s2", "g", options, second).await;
    assert_eq!(seen.next().await.attempt, 2);
    tokio::join!(consumer.close(), other.close());
}

/// A consumer that is dropped stops as if it had been closed.
pub async fn a_dropped_consumer_closes(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let (recorder, seen) = recorder();
    drop(subscribe(&streams, "s", "g", from_start(), recorder).await);
    assert!(seen.rest().await.is_empty());
}

/// The consumers of a stream that is deleted end at once, without a poll.
pub async fn the_end_of_a_stream_ends_its_consumers(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let (recorder, _) = recorder();
    let options = from_start().with_poll_interval(NEVER);
    let consumer = subscribe(&streams, "s", "g", options, recorder).await;
    streams.publish("s", NewMessage::new("")).await.unwrap();
    until(|| async { consumer.stats().acknowledged == 1 }).await;
    assert!(streams.delete_stream("s").await.unwrap());
    let reason = soon(consumer.ended()).await.reason;
    assert!(
        matches!(reason, EndReason::Failed(Error::UnknownGroup)),
        "{reason:?}"
    );
}
