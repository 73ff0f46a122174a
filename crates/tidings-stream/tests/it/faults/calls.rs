//! A call fails within its limits and says what is known; the next one works once the store does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidings_stream::engine::{ConsumerKey, Outcome, Settlement};
use tidings_stream::{Error, NewMessage, StartFrom, Streams};
use tidings_test_support::{Breakable, Fault, Outage, Server};
use tokio::time::Instant;

use super::{Gate, Open, is_outage, streams};
use crate::database::{NEVER, from_start, key, name, next, numbered, recorder, soon, until};

/// In the references, every caller after a first connection that failed waits for ever.
pub(crate) async fn regression_a_first_connection_that_fails_is_not_the_last(
    outage: &mut dyn Outage,
    open: Open,
) {
    outage.cut().await.unwrap();
    let refused = open(outage.url()).await.unwrap_err();
    assert!(matches!(refused, Error::Backend(_)), "{refused:?}");
    outage.restore().await.unwrap();
    let near = streams(open, outage.url()).await;
    outage.cut().await.unwrap();
    let refused = near
        .subscribe("s", "g", from_start(), |_| async { Ok(()) })
        .await;
    // Whether the connection broke before the call was sent is not known.
    let refused = refused.unwrap_err();
    assert!(is_outage(&refused), "{refused:?}");
    outage.restore().await.unwrap();
    let (recorder, mut seen) = recorder();
    let consumer = near
        .subscribe("s", "g", from_start(), recorder)
        .await
        .unwrap();
    let far = streams(open, &outage.direct_url()).await;
    far.publish("s", NewMessage::new("")).await.unwrap();
    next(&mut seen).await.unwrap();
    consumer.close().await;
}

pub(crate) async fn a_store_that_falls_silent_is_an_error_within_the_limit<S: Server>(
    outage: &mut Breakable<S>,
    open: Open,
) {
    let engine = open(outage.url()).await.unwrap();
    let stream = name("s");
    let groups: Arc<[_]> = Arc::from([key("s", "g")]);
    let append = || engine.append(&stream, numbered(1), None);
    let look = || engine.ready(Arc::clone(&groups));
    append().await.unwrap();
    look().await.unwrap();
    outage.proxy().freeze();
    let (published, looked) = soon(async { tokio::join!(append(), look()) }).await;
    let (published, looked) = (published.unwrap_err(), looked.unwrap_err());
    assert!(
        matches!(published, Error::OutcomeUnknown(_)),
        "{published:?}"
    );
    assert!(matches!(looked, Error::OutcomeUnknown(_)), "{looked:?}");
    // On another connection, since that one is of no use any more.
    append().await.unwrap();
    look().await.unwrap();
    engine.stats(&stream).await.unwrap();
}

/// Closing takes its own time, and not that of calls to a server that does not reply, to which the engine
/// tries to connect again meanwhile. No message is lost.
pub(crate) async fn regression_closing_ends_in_time_while_the_store_is_frozen(
    outage: &mut dyn Outage,
    open: Open,
) {
    let near = streams(open, outage.url()).await;
    near.publish("s", NewMessage::new("")).await.unwrap();
    let (gate, mut begun) = Gate::new();
    let timeout = Duration::from_millis(500);
    let options = from_start()
        .with_concurrency(2)
        .with_visibility_timeout(Duration::from_secs(10))
        .with_shutdown_timeout(timeout);
    let consumer = near.subscribe("s", "g", options, gate.handler()).await;
    let consumer = consumer.unwrap();
    soon(begun.recv()).await.unwrap();
    outage.begin(Fault::Freeze).await.unwrap();
    let lost = soon(near.publish("s", NewMessage::new(""))).await;
    assert!(is_outage(&lost.unwrap_err()));
    gate.open();
    let closing = Instant::now();
    let report = soon(consumer.close()).await;
    let took = closing.elapsed();
    // Without its own limits it waits for as long as the server is frozen.
    assert!(took < timeout + Duration::from_millis(7500), "{took:?}");
    assert_eq!((report.finished, report.abandoned), (0, 1));
    outage.restore().await.unwrap();
    let far = streams(open, &outage.direct_url()).await;
    // The server may have taken it after all, from what it had received; otherwise the message comes again.
    let consumer = far.subscribe("s", "g", from_start(), |_| async { Ok(()) });
    let consumer = consumer.await.unwrap();
    until(async || {
        let group = far.stats("s").await.unwrap().groups.remove(0);
        (group.lag, group.pending, group.dead_lettered) == (0, 0, 0)
    })
    .await;
    consumer.close().await;
}

/// A claim whose reply was lost was given to no handler: its attempts do not count.
pub(crate) async fn regression_claims_whose_reply_is_lost_keep_their_attempts(
    outage: &mut dyn Outage,
    open: Open,
) {
    let near = open(&outage.direct_url()).await.unwrap();
    let far = open(outage.url()).await.unwrap();
    let key = key("s", "g");
    let member = ConsumerKey {
        group: key.clone(),
        consumer: "c".into(),
    };
    near.open_group(&key, StartFrom::Earliest).await.unwrap();
    near.append(&key.stream, numbered(3), None).await.unwrap();
    for _ in 0..5 {
        until(async || far.ready(Arc::from([key.clone()])).await.is_ok()).await;
        let claiming = far.claim(&member, 3, NEVER.into());
        let cutting = async {
            until(async || {
                let pending = near.pending(&key, None, 10).await.unwrap();
                pending.iter().any(|message| message.consumer.is_some())
            })
            .await;
            outage.cut().await.unwrap();
        };
        let (claimed, ()) = tokio::join!(claiming, cutting);
        outage.restore().await.unwrap();
        // The reply may have been faster than the cut.
        let again = far.claim(&member, 3, NEVER.into()).await;
        for claimed in [claimed, again].into_iter().flatten() {
            // After a read that failed a claim takes fewer messages, and one may be held back.
            assert!(claimed.messages.iter().all(|it| it.message.attempt == 1));
            let settlements = claimed.messages.iter().map(|it| Settlement {
                receipt: it.receipt,
                outcome: Outcome::Released,
            });
            near.settle(&key, settlements.collect()).await.unwrap();
        }
    }
    let mut attempts = Vec::new();
    until(async || {
        if let Ok(claimed) = far.claim(&member, 3, NEVER.into()).await {
            attempts.extend(claimed.messages.iter().map(|it| it.message.attempt));
        }
        attempts.len() >= 3
    })
    .await;
    assert_eq!(attempts, [1, 1, 1]);
}

/// A message whose content cannot be read stops no other, and none loses an attempt by it: the seventh
/// of forty messages cannot be read until `restore`.
pub(crate) async fn a_message_that_cannot_be_read_stops_no_other(
    streams: &Streams,
    restore: impl AsyncFnOnce(),
) {
    let (recorder, mut seen) = recorder();
    let options = from_start().with_max_retries(0).with_concurrency(16);
    let consumer = streams
        .subscribe("s", "g", options, recorder)
        .await
        .unwrap();
    let mut handled = BTreeSet::new();
    for _ in 0..39 {
        let message = next(&mut seen).await.unwrap();
        assert_eq!(message.attempt, 1);
        assert!(handled.insert(message.id.as_u64()));
    }
    assert!(!handled.contains(&7));
    restore().await;
    let message = next(&mut seen).await.unwrap();
    assert_eq!((message.id.as_u64(), message.attempt), (7, 1));
    consumer.close().await;
    assert_eq!(streams.stats("s.dead").await.unwrap().messages, 0);
}

/// Publishes while the store takes no writes, for several of the pauses that claiming makes.
pub(crate) async fn publishing_is_refused_for_a_while(streams: &Streams) {
    for _ in 0..20 {
        let refused = streams.publish("s", NewMessage::new("")).await.unwrap_err();
        assert!(is_outage(&refused), "{refused:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
