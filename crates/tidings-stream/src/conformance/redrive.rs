use std::sync::Arc;

use super::support::{from_start, number, numbered, streams, subscribe, until};
use crate::engine::Engine;
use crate::{HandlerError, Message, Redrive};

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
