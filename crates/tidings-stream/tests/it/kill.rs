//! What a killed process leaves behind, on every engine that outlives it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidings_stream::engine::Engine;
use tidings_stream::{Message, NewMessage, ServiceConfig, StartFrom, Streams, SubscribeOptions};
use tokio::sync::mpsc;

use crate::children::{Parent, say, tests_with_children};

const ROUNDS: u64 = 12;
const CONCURRENCY: usize = 8;

tests_with_children!(
    a_killed_process_loses_nothing_that_was_acknowledged,
    kill_again_and_again,
    publish_and_consume_until_killed
);

/// Kills a process that publishes and consumes, again and again. Every message whose publish was
/// acknowledged is handled, and what is handled twice was in hand when its process died.
async fn kill_again_and_again(parent: &Parent) {
    let mut published = BTreeSet::new();
    let mut handled = Vec::new();
    for round in 0..ROUNDS {
        let (mut child, lines) = parent.start();
        // Death comes after a number of lines, not after a time.
        let mut left = 40 + round * 17;
        for line in lines {
            if let Some(id) = line.strip_prefix("published ") {
                published.insert(id.parse::<u64>().unwrap());
            } else if let Some(id) = line.strip_prefix("handled ") {
                handled.push(id.parse::<u64>().unwrap());
            } else {
                continue;
            }
            if left == 0 {
                child.kill().unwrap();
            }
            left = left.saturating_sub(1);
        }
        child.wait().unwrap();
    }
    handle_the_rest(parent.open().await, &mut handled).await;
    assert!(published.len() as u64 >= ROUNDS, "{}", published.len());
    let distinct: BTreeSet<u64> = handled.iter().copied().collect();
    let missing: Vec<_> = published.difference(&distinct).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // In hand: what handlers had, and the few that waited to be recorded behind them.
    let twice = handled.len() - distinct.len();
    let bound = usize::try_from(ROUNDS).unwrap() * CONCURRENCY * 4;
    assert!(twice <= bound, "{twice} of {}", handled.len());
}

/// Reads everything and gives nothing up. No process knows that the one before has died until its
/// claims expire, except on a file.
fn options(concurrency: usize) -> SubscribeOptions {
    SubscribeOptions::default()
        .with_start(StartFrom::Earliest)
        .with_visibility_timeout(Duration::from_secs(2))
        .with_poll_interval(Duration::from_millis(20))
        .with_unlimited_retries()
        .with_concurrency(concurrency)
}

/// Says what it has done, one line each, and never ends by itself.
async fn publish_and_consume_until_killed(engine: Arc<dyn Engine>) {
    let streams = Streams::new(engine, ServiceConfig::default());
    let handler = |message: Message| async move {
        say(&format!("handled {}", message.id));
        Ok(())
    };
    let subscribed = streams.subscribe("s", "g", options(CONCURRENCY), handler);
    let _consumer = subscribed.await.unwrap();
    loop {
        let id = streams.publish("s", NewMessage::new("body")).await.unwrap();
        say(&format!("published {id}"));
    }
}

/// Works through what is left.
async fn handle_the_rest(engine: Arc<dyn Engine>, handled: &mut Vec<u64>) {
    let streams = Streams::new(engine, ServiceConfig::default());
    let (sender, mut seen) = mpsc::channel(1 << 14);
    let pass_on = move |message: Message| {
        let sender = sender.clone();
        async move { Ok(sender.send(message.id.as_u64()).await?) }
    };
    let consumer = streams.subscribe("s", "g", options(64), pass_on);
    let consumer = consumer.await.unwrap();
    loop {
        while let Ok(id) = seen.try_recv() {
            handled.push(id);
        }
        let group = streams.stats("s").await.unwrap().groups.remove(0);
        if (group.lag, group.pending) == (0, 0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    consumer.close().await;
    while let Some(id) = seen.recv().await {
        handled.push(id);
    }
}
