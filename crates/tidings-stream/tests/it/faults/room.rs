//! A store without room refuses what needs some, and nothing else.

use futures_util::future::join_all;
use tidings_stream::{BatchError, Error, HandlerError, Message, NewMessage};
use tidings_test_support::Outage;
use tokio::sync::{mpsc, watch};

use super::{Gate, Open, streams};
use crate::database::{NEVER, from_start, numbered, soon, until};

/// `records` is whether ends are recorded although there is no room.
pub(crate) async fn a_full_store_fails_publishing_by_name_and_loses_no_acknowledgement(
    outage: &mut dyn Outage,
    open: Open,
    records: bool,
) {
    let streams = streams(open, outage.url()).await;
    let (gate, mut begun) = Gate::new();
    let options = from_start().with_visibility_timeout(NEVER);
    let consumer = streams
        .subscribe("s", "g", options, gate.handler())
        .await
        .unwrap();
    streams.publish("s", NewMessage::new("")).await.unwrap();
    soon(begun.recv()).await.unwrap();
    outage.fill().await.unwrap();
    let large = || vec![NewMessage::new(vec![1; 256 << 10]); 3];
    for refused in join_all((0..10).map(|_| streams.publish_batch("s", large()))).await {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, Error::Full(_)), "{refused:?}");
    }
    gate.open();
    if records {
        until(async || consumer.stats().acknowledged == 1).await;
    }
    outage.restore().await.unwrap();
    until(async || consumer.stats().acknowledged == 1).await;
    let id = streams.publish("s", large().remove(0)).await.unwrap();
    assert_eq!(id.as_u64(), 2, "a failed publish takes no number");
    assert_eq!(soon(begun.recv()).await.unwrap().id, id);
    assert_eq!(soon(consumer.close()).await.abandoned, 0);
    let group = streams.stats("s").await.unwrap().groups.remove(0);
    assert_eq!((group.pending, group.lag), (0, 0));
}

/// A dead letter that the store has no room for does not keep an acknowledgement from being recorded.
/// `takes_letters` is whether a full store takes dead letters.
pub(crate) async fn regression_a_dead_letter_without_room_holds_up_no_acknowledgement(
    outage: &mut dyn Outage,
    open: Open,
    takes_letters: bool,
) {
    let streams = streams(open, outage.url()).await;
    streams.publish_batch("s", numbered(2)).await.unwrap();
    let (begun, mut has_begun) = mpsc::channel(1);
    let gate = watch::Sender::new(false);
    let is_open = gate.subscribe();
    let handler = move |messages: Vec<Message>| {
        let (begun, mut is_open) = (begun.clone(), is_open.clone());
        async move {
            assert_eq!(messages.len(), 2);
            begun.send(()).await.unwrap();
            is_open.wait_for(|is_open| *is_open).await.unwrap();
            let mut failed = BatchError::none();
            failed.push(messages[0].id, HandlerError::skip_retry("no"));
            failed.into_result()
        }
    };
    let options = from_start().with_visibility_timeout(NEVER);
    let consumer = streams
        .subscribe_batch("s", "g", options, handler)
        .await
        .unwrap();
    soon(has_begun.recv()).await.unwrap();
    outage.fill().await.unwrap();
    gate.send_replace(true);
    let pending = async || streams.stats("s").await.unwrap().groups[0].pending;
    until(async || consumer.stats().acknowledged == 1).await;
    if takes_letters {
        until(async || consumer.stats().dead_lettered == 1).await;
    } else {
        assert_eq!(pending().await, 1);
    }
    outage.restore().await.unwrap();
    until(async || consumer.stats().dead_lettered == 1).await;
    assert_eq!(pending().await, 0);
    consumer.close().await;
}
