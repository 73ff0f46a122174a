use std::sync::Arc;

use super::support::{from_start, number, numbered, streams, subscribe, until};
use crate::engine::Engine;
use crate::{HandlerError, Message, NewMessage, Redrive};

/// A filter chooses what is brought back. What it leaves is brought back by a later redrive, and nothing
/// twice.
pub async fn a_filter_chooses_which_letters_are_brought_back(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    streams.publish_batch("s", numbered(250)).await.unwrap();
    let bury = |_: Message| async { Err(HandlerError::skip_retry("not today")) };
    let options = from_start().with_concurrency(50);
    let consumer = subscribe(&streams, "s", "g", options, bury).await;
    until(|| async { consumer.stats().dead_lettered == 250 }).await;
    consumer.close().await;

    let thirds = || Redrive::default().with_filter(|letter| number(letter).is_multiple_of(3));
    let all = Redrive::default;
    let none = || Redrive::default().with_filter(|_| false);
    let steps = [
        thirds().with_limit(50),
        none(),
        thirds(),
        thirds(),
        all(),
        all(),
    ];
    let mut moved = Vec::new();
    for redrive in steps {
        let redriven = streams.redrive("s.dead", redrive).await.unwrap();
        assert_eq!(redriven.skipped, 0);
        moved.push(redriven.moved);
    }
    assert_eq!(moved, [50, 0, 33, 0, 167, 0]);
    let brought_back = streams.read("s", None, 1000).await.unwrap().split_off(250);
    let mut numbers: Vec<u64> = brought_back.iter().map(number).collect();
    assert!(numbers[..83].iter().all(|number| number.is_multiple_of(3)));
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=250));
    let group = &streams.stats("s.dead").await.unwrap().groups[0];
    assert_eq!((group.lag, group.pending), (0, 0));
}

/// What says no stream stays, counts towards no limit, and moves once a redrive has a target.
pub async fn what_a_redrive_skips_can_be_sent_elsewhere(engine: Arc<dyn Engine>) {
    let streams = streams(engine);
    let by_hand = NewMessage::new("0");
    streams.publish("s.dead", by_hand).await.unwrap();
    streams.publish_batch("s", numbered(2)).await.unwrap();
    let bury = |_: Message| async { Err(HandlerError::skip_retry("not today")) };
    let consumer = subscribe(&streams, "s", "g", from_start(), bury).await;
    until(|| async { consumer.stats().dead_lettered == 2 }).await;
    consumer.close().await;

    let default = Redrive::default;
    let elsewhere = || default().with_target("t");
    for (redrive, expected) in [
        (default().with_limit(1), (1, 1)),
        (default(), (1, 1)),
        (default(), (0, 1)),
        (elsewhere(), (1, 0)),
        (elsewhere(), (0, 0)),
    ] {
        let redriven = streams.redrive("s.dead", redrive).await.unwrap();
        assert_eq!((redriven.moved, redriven.skipped), expected);
    }
    let moved = streams.read("t", None, 10).await.unwrap();
    assert_eq!(moved.iter().map(number).collect::<Vec<_>>(), [0]);
    let brought_back = streams.read("s", None, 10).await.unwrap().split_off(2);
    assert!(brought_back.iter().map(number).eq([1, 2]));
    let group = &streams.stats("s.dead").await.unwrap().groups[0];
    assert_eq!((group.lag, group.pending), (0, 0));
}
