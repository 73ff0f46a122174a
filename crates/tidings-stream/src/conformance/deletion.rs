use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::support::{
    NEVER, from_start, key, number, numbered, recorder, some_consumer, streams, subscribe, until,
};
use crate::engine::{ClaimOptions, Engine, Outcome, Settlement};
use crate::{
    HandlerError, Headers, Message, MessageId, NewMessage, Redrive, Retention, StartFrom, Streams,
};

fn id(number: u64) -> MessageId {
    MessageId::from_u64(number)
}

/// A message that is deleted is gone for readers and for groups that have yet to handle it. The others keep their
/// ids, its own is not given again, and its publish key stays in use.
pub async fn a_deleted_message_is_gone_and_leaves_the_others(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let keyed = || NewMessage::new("6").with_publish_key("k", NEVER);
    streams.publish_batch("s", numbered(5)).await.unwrap();
    assert_eq!(streams.publish("s", keyed()).await.unwrap(), id(6));
    let (first_recorder, mut first) = recorder();
    let done = subscribe(&streams, "s", "done", from_start(), first_recorder).await;
    assert_eq!(first.numbers(6).await.len(), 6);
    until(|| async { done.stats().acknowledged == 6 }).await;
    streams
        .create_group("s", "behind", StartFrom::Earliest)
        .await
        .unwrap();

    for number in [1, 3, 4, 6] {
        assert!(streams.delete_message("s", id(number)).await.unwrap());
        assert!(!streams.delete_message("s", id(number)).await.unwrap());
    }
    for number in [0, 7, u64::MAX] {
        assert!(!streams.delete_message("s", id(number)).await.unwrap());
    }
    assert!(!streams.delete_message("unknown", id(1)).await.unwrap());
    assert_eq!(streams.list().await.unwrap(), ["s"]);

    assert_eq!(streams.publish("s", keyed()).await.unwrap(), id(6));
    assert_eq!(
        streams.publish("s", NewMessage::new("7")).await.unwrap(),
        id(7)
    );
    let numbers = |messages: Vec<Message>| messages.iter().map(number).collect::<Vec<_>>();
    assert_eq!(
        numbers(streams.read("s", None, 10).await.unwrap()),
        [2, 5, 7]
    );
    // Pages of deleted messages are not the end.
    assert_eq!(numbers(streams.read("s", None, 1).await.unwrap()), [2]);
    assert_eq!(
        numbers(streams.read("s", Some(id(2)), 1).await.unwrap()),
        [5]
    );
    let (second_recorder, mut second) = recorder();
    let behind = subscribe(&streams, "s", "behind", from_start(), second_recorder).await;
    assert_eq!(second.numbers(3).await, [2, 5, 7]);
    assert_eq!(first.numbers(1).await, [7]);
    for consumer in [&done, &behind] {
        until(|| async { consumer.stats().acknowledged % 4 == 3 }).await;
        consumer.close().await;
    }
    let figures = streams.stats("s").await.unwrap();
    assert_eq!((figures.messages, figures.newest), (7, Some(id(7))));
    let lost = figures
        .groups
        .iter()
        .map(|it| (it.lag, it.pending, it.lost_to_trim));
    assert_eq!(lost.collect::<Vec<_>>(), [(0, 0, 4), (0, 0, 0)]);
}

/// Who has claimed a message that is deleted may end the claim in every way, and the other messages of the same
/// call are not harmed. It does not come again, and makes no dead letter.
pub async fn a_message_may_be_deleted_while_a_consumer_has_it(engine: Arc<dyn Engine>) {
    let streams = streams(engine.clone());
    let group = key(&streams, "s", "g");
    engine
        .open_group(&group, StartFrom::Earliest)
        .await
        .unwrap();
    for in_key_order in [false, true] {
        streams.publish_batch("s", numbered(4)).await.unwrap();
        let options = ClaimOptions {
            in_key_order,
            ..NEVER.into()
        };
        let claimed = engine
            .claim(&some_consumer(&group), 4, options)
            .await
            .unwrap();
        let receipts: Vec<_> = claimed.messages.iter().map(|it| it.receipt).collect();
        assert_eq!(receipts.len(), 4);
        for receipt in &receipts[..3] {
            assert!(streams.delete_message("s", receipt.id).await.unwrap());
        }
        let extended = engine.extend(&group, receipts.clone().into(), NEVER).await;
        assert_eq!(extended.unwrap(), [true; 4]);
        let outcomes = [
            Outcome::Acknowledged,
            Outcome::Retry {
                delay: Duration::ZERO,
                error: None,
            },
            Outcome::Dead {
                to: group.stream.dead_letter(),
                provenance: Headers::new(),
            },
            Outcome::Acknowledged,
        ];
        let settlements = receipts.into_iter().zip(outcomes);
        let settlements = settlements.map(|(receipt, outcome)| Settlement { receipt, outcome });
        let obeyed = engine.settle(&group, settlements.collect()).await.unwrap();
        assert_eq!(obeyed, [true, true, false, true]);
        let again = engine.claim(&some_consumer(&group), 9, options).await;
        assert!(again.unwrap().messages.is_empty());
    }
    let figures = streams.stats("s").await.unwrap().groups.remove(0);
    assert_eq!((figures.pending, figures.lag), (0, 0));
    assert_eq!((figures.lost_to_trim, figures.dead_lettered), (4, 0));
    assert_eq!(streams.stats("s.dead").await.unwrap().messages, 0);
}

/// A message that fails again and again is deleted, and holds its ordering key back no longer, whenever its next
/// attempt would have been.
pub async fn deleting_a_message_that_waits_frees_its_key(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let keyed = |number: u64| NewMessage::new(number.to_string()).with_ordering_key("a");
    streams
        .publish_batch("s", (1..=3).map(keyed).collect())
        .await
        .unwrap();
    let (recorder, mut seen) = recorder();
    let handler = move |message: Message| {
        let recorder = recorder.clone();
        async move {
            let is_poison = number(&message) == 1;
            recorder.note(message).await;
            if is_poison {
                return Err(HandlerError::retry_after(NEVER, "poison"));
            }
            Ok(())
        }
    };
    let options = from_start()
        .with_key_order()
        .with_visibility_timeout(NEVER)
        .with_poll_interval(NEVER);
    let consumer = subscribe(&streams, "s", "g", options, handler).await;
    assert_eq!(seen.numbers(1).await, [1]);
    until(|| async { consumer.stats().retried == 1 }).await;
    assert!(streams.delete_message("s", id(2)).await.unwrap());
    assert!(streams.delete_message("s", id(1)).await.unwrap());
    assert_eq!(seen.numbers(1).await, [3]);
    until(|| async { consumer.stats().acknowledged == 1 }).await;
    consumer.close().await;
    let figures = streams.stats("s").await.unwrap().groups.remove(0);
    assert_eq!((figures.pending, figures.lost_to_trim), (0, 2));
}

/// A dead letter that is deleted is not brought back, and the others are.
pub async fn a_deleted_dead_letter_is_not_brought_back(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", numbered(4)).await.unwrap();
    let bury = |_: Message| async { Err(HandlerError::skip_retry("not today")) };
    let consumer = subscribe(&streams, "s", "g", from_start(), bury).await;
    until(|| async { consumer.stats().dead_lettered == 4 }).await;
    consumer.close().await;
    let one = Redrive::default().with_limit(1);
    assert_eq!(streams.redrive("s.dead", one).await.unwrap().moved, 1);
    for letter in [1, 2, 4] {
        assert!(streams.delete_message("s.dead", id(letter)).await.unwrap());
    }
    let rest = streams.redrive("s.dead", Redrive::default()).await.unwrap();
    assert_eq!((rest.moved, rest.skipped), (1, 0));
    let brought_back = streams.read("s", Some(id(4)), 10).await.unwrap();
    assert_eq!(brought_back.iter().map(number).collect::<Vec<_>>(), [1, 3]);
}

/// A redrive goes on behind deleted letters, also where all that one claim finds was deleted.
pub async fn a_redrive_goes_on_behind_deleted_letters(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let elsewhere = || Redrive::default().with_target("t");
    for (letters, deleted, redrive, moved) in [
        (3, 1..=1, elsewhere().with_limit(1), 1),
        (250, 101..=200, elsewhere(), 150),
    ] {
        let stream = format!("s{letters}.dead");
        let published = streams.publish_batch(&stream, numbered(letters)).await;
        published.unwrap();
        for letter in deleted {
            assert!(streams.delete_message(&stream, id(letter)).await.unwrap());
        }
        let redriven = streams.redrive(&stream, redrive).await.unwrap();
        assert_eq!((redriven.moved, redriven.skipped), (moved, 0));
    }
}

/// Publishes to another stream until the clock of the store is past a time, in whole milliseconds.
async fn clock_passes(streams: &Streams, time: Timestamp) {
    loop {
        let id = streams.publish("clock", NewMessage::new("")).await.unwrap();
        let before = MessageId::from_u64(id.as_u64() - 1);
        let last = streams.read("clock", Some(before), 1).await.unwrap();
        if last[0].created_at > time {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// The messages of a batch keep the time at which they were appended when one of them is deleted.
pub async fn the_neighbours_of_a_deleted_message_keep_their_time(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", numbered(3)).await.unwrap();
    let begun = StartFrom::Earliest;
    streams.create_group("s", "g", begun).await.unwrap();
    let batch = streams.read("s", None, 1).await.unwrap().remove(0);
    assert!(streams.delete_message("s", id(1)).await.unwrap());
    let figures = streams.stats("s").await.unwrap().groups.remove(0);
    assert_eq!(figures.lag, 3);
    assert!(figures.lag_time.is_some());

    clock_passes(&streams, batch.created_at).await;
    let later = streams.publish("s", NewMessage::new("4")).await.unwrap();
    assert_eq!(later, id(4));
    let after = StartFrom::At(batch.created_at + SignedDuration::from_millis(1));
    streams.create_group("s", "after", after).await.unwrap();
    let groups = streams.stats("s").await.unwrap().groups;
    let position = groups.iter().find(|it| it.name.as_str() == "after");
    assert_eq!(position.unwrap().position, id(3));

    streams.publish_batch("old", numbered(3)).await.unwrap();
    let batch = streams.read("old", None, 1).await.unwrap().remove(0);
    assert!(streams.delete_message("old", id(1)).await.unwrap());
    let age = SignedDuration::from_millis(1);
    clock_passes(&streams, batch.created_at + age).await;
    let bounded = Retention::default().with_max_age(age.unsigned_abs());
    streams.set_retention("old", bounded).await.unwrap();
    streams.trim().await.unwrap();
    let left = streams.stats("old").await.unwrap();
    assert_eq!((left.messages, left.oldest), (0, None));
}
