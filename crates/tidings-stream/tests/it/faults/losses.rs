//! Nothing that was accepted is lost, whatever happens while it is published and handled.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidings_stream::{Error, Message, NewMessage, Streams, SubscribeOptions};
use tidings_test_support::{Breakable, Fault, Outage, Server};

use super::{Gate, Open, REPLY_LIMIT, is_outage, streams};
use crate::database::{from_start, next, recorder, soon, until};

/// Options with which claims of connections that broke come back soon.
pub(crate) fn impatient() -> SubscribeOptions {
    from_start()
        .with_visibility_timeout(Duration::from_millis(500))
        .with_poll_interval(Duration::from_millis(50))
        .with_unlimited_retries()
        .with_concurrency(8)
}

/// Publishes and consumes while `disturb` is at work, and afterwards until everything is handled. What
/// was accepted is handled; a publish that failed may have happened, whole. Returns what handlers got.
pub(crate) async fn nothing_acknowledged_is_lost(
    streams: &Streams,
    disturb: impl Future<Output = ()>,
) -> Vec<Message> {
    let (recorder, mut seen) = recorder();
    let consumer = streams
        .subscribe("s", "g", impatient(), recorder)
        .await
        .unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    // A task of its own, which continues while `disturb` blocks its thread.
    let publishing = tokio::spawn(publish_pairs(streams.clone(), Arc::clone(&is_over)));
    disturb.await;
    is_over.store(true, Ordering::Relaxed);
    let (published, failed) = soon(publishing).await.unwrap();
    let mut handled = Vec::new();
    until(async || {
        while let Ok(message) = seen.try_recv() {
            handled.push(message);
        }
        let stats = streams.stats("s").await;
        stats.is_ok_and(|stats| (stats.groups[0].lag, stats.groups[0].pending) == (0, 0))
    })
    .await;
    consumer.close().await;
    while let Some(message) = next(&mut seen).await {
        handled.push(message);
    }
    let number = |message: &Message| {
        std::str::from_utf8(&message.payload)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let distinct: BTreeSet<u64> = handled.iter().map(number).collect();
    let missing: Vec<_> = published.difference(&distinct).collect();
    assert!(missing.is_empty(), "{missing:?}, {failed} failed");
    // Dense ids, and every batch whole.
    let kept = streams.stats("s").await.unwrap().messages;
    let ids: BTreeSet<u64> = handled.iter().map(|message| message.id.as_u64()).collect();
    assert!(ids.into_iter().eq(1..=kept));
    assert_eq!(kept, 2 * distinct.len() as u64);
    handled
}

/// Publishes pairs of equal messages until it is over, 500 at least. Returns the numbers that were
/// accepted, and how many failed.
async fn publish_pairs(streams: Streams, is_over: Arc<AtomicBool>) -> (BTreeSet<u64>, u64) {
    let (mut published, mut failed) = (BTreeSet::new(), 0);
    let mut number = 0_u64;
    while !is_over.load(Ordering::Relaxed) || number < 500 {
        number += 1;
        let pair = [number.to_string(), number.to_string()].map(NewMessage::new);
        match streams.publish_batch("s", pair.into()).await {
            Ok(_) => {
                published.insert(number);
            }
            Err(error) => {
                let is_expected = is_outage(&error) || matches!(error, Error::Full(_));
                assert!(is_expected, "{error:?}");
                failed += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    (published, failed)
}

/// No claim is handed out twice: a message that comes again is another attempt.
pub(crate) fn assert_attempts_differ(handled: &[Message]) {
    let attempts: BTreeSet<_> = handled
        .iter()
        .map(|message| (message.id, message.attempt))
        .collect();
    assert_eq!(attempts.len(), handled.len());
}

/// Waits until more messages are stored.
async fn until_published(streams: &Streams, more: u64) {
    let mut before = None;
    until(async || {
        // The store may have come back a moment ago.
        let Ok(stats) = streams.stats("s").await else {
            return false;
        };
        stats.messages > *before.get_or_insert(stats.messages) + more
    })
    .await;
}

pub(crate) async fn cut_connections_lose_nothing<S: Server>(outage: &mut Breakable<S>, open: Open) {
    let streams = streams(open, outage.url()).await;
    let handled = nothing_acknowledged_is_lost(&streams, async {
        for _ in 0..10 {
            let accepted = outage.proxy().accepted();
            outage.cut().await.unwrap();
            outage.restore().await.unwrap();
            // Those that publish and claim; the one that listens comes back ever later.
            until(async || outage.proxy().accepted() > accepted + 1).await;
        }
    })
    .await;
    assert_attempts_differ(&handled);
}

/// A crash may undo claims that need not be on disk: the same attempt is made again then.
pub(crate) async fn a_store_that_crashes_loses_nothing_that_it_has_accepted(
    outage: &mut dyn Outage,
    open: Open,
    undoes_claims: bool,
) {
    let streams = streams(open, outage.url()).await;
    let handled = nothing_acknowledged_is_lost(&streams, async {
        for _ in 0..3 {
            until_published(&streams, 50).await;
            outage.kill().await.unwrap();
            outage.restore().await.unwrap();
        }
    })
    .await;
    if !undoes_claims {
        assert_attempts_differ(&handled);
    }
}

/// Everything that is claimed comes again by its timeout, and what handlers have finished in the
/// meantime is recorded once the store continues.
pub(crate) async fn a_store_that_stops_for_longer_than_a_claim_lasts_loses_nothing(
    outage: &mut dyn Outage,
    open: Open,
) {
    let streams = streams(open, outage.url()).await;
    let handled = nothing_acknowledged_is_lost(&streams, async {
        for _ in 0..2 {
            until_published(&streams, 50).await;
            outage.freeze().await.unwrap();
            // Longer than its claims last, and than a caller waits for a reply.
            tokio::time::sleep(REPLY_LIMIT + Duration::from_millis(500)).await;
            outage.restore().await.unwrap();
        }
    })
    .await;
    assert_attempts_differ(&handled);
}

pub(crate) async fn a_store_that_runs_full_loses_nothing(outage: &mut dyn Outage, open: Open) {
    let streams = streams(open, outage.url()).await;
    let handled = nothing_acknowledged_is_lost(&streams, async {
        for _ in 0..3 {
            until_published(&streams, 50).await;
            outage.fill().await.unwrap();
            // A file may have some room left.
            let large = || NewMessage::new(vec![0; 1 << 20]);
            until(async || matches!(streams.publish("other", large()).await, Err(Error::Full(_))))
                .await;
            outage.restore().await.unwrap();
        }
    })
    .await;
    assert_attempts_differ(&handled);
}

/// What is acknowledged while the store is broken is recorded when it is back.
pub(crate) async fn an_acknowledgement_outlives_every_fault(
    outage: &mut dyn Outage,
    open: Open,
    faults: &[Fault],
) {
    let near = streams(open, outage.url()).await;
    let far = streams(open, &outage.direct_url()).await;
    let (gate, mut begun) = Gate::new();
    // Only an end that is recorded ends a claim.
    let options = from_start().with_visibility_timeout(Duration::from_secs(600));
    let consumer = near
        .subscribe("s", "g", options, gate.handler())
        .await
        .unwrap();
    for fault in faults {
        gate.close();
        let mut id = None;
        until(async || {
            // The connections may have come back a moment ago.
            id = near.publish("s", NewMessage::new("")).await.ok();
            id.is_some()
        })
        .await;
        while Some(soon(begun.recv()).await.unwrap().id) != id {}
        outage.begin(*fault).await.unwrap();
        let acknowledged = consumer.stats().acknowledged;
        gate.open();
        if *fault == Fault::Freeze {
            // The call fails before the store continues.
            tokio::time::sleep(REPLY_LIMIT + Duration::from_millis(500)).await;
        }
        if *fault == Fault::Cut {
            assert_eq!(far.stats("s").await.unwrap().groups[0].pending, 1);
        }
        outage.restore().await.unwrap();
        until(async || {
            let stats = far.stats("s").await;
            stats.is_ok_and(|stats| (stats.groups[0].lag, stats.groups[0].pending) == (0, 0))
        })
        .await;
        if *fault == Fault::Cut {
            until(async || consumer.stats().acknowledged == acknowledged + 1).await;
        }
    }
    assert_eq!(soon(consumer.close()).await.abandoned, 0);
}
