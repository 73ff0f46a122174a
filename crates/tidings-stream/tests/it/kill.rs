//! What a killed process leaves behind, on every engine that outlives it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tidings_stream::engine::Engine;
use tidings_stream::{Message, NewMessage, ServiceConfig, StartFrom, Streams, SubscribeOptions};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::place::{Place, open};

/// Tells the child where the streams are.
const CHILD: &str = "TIDINGS_STREAM_TEST_CHILD";

const ROUNDS: u64 = 12;
const CONCURRENCY: usize = 8;

#[test]
fn sqlite_loses_nothing_that_was_acknowledged_to_a_killed_process() {
    kill_again_and_again(
        "kill::sqlite_loses_nothing_that_was_acknowledged_to_a_killed_process",
        |_| Place::sqlite(),
    );
}

#[test]
fn postgres_loses_nothing_that_was_acknowledged_to_a_killed_process() {
    kill_again_and_again(
        "kill::postgres_loses_nothing_that_was_acknowledged_to_a_killed_process",
        |runtime| runtime.block_on(Place::postgres()),
    );
}

#[test]
fn redis_loses_nothing_that_was_acknowledged_to_a_killed_process() {
    kill_again_and_again(
        "kill::redis_loses_nothing_that_was_acknowledged_to_a_killed_process",
        |_| Place::redis(),
    );
}

/// Kills a process that publishes and consumes, again and again. Every message whose publish was
/// acknowledged is handled, and what is handled twice was in hand when its process died.
///
/// The children run the test of the given name, in the place that `make` makes.
fn kill_again_and_again(test: &str, make: impl FnOnce(&Runtime) -> Place) {
    let runtime = Runtime::new().unwrap();
    if let Ok(place) = std::env::var(CHILD) {
        runtime.block_on(async { publish_and_consume_until_killed(open(&place).await).await });
    }
    let place = make(&runtime);
    let mut published = BTreeSet::new();
    let mut handled = Vec::new();
    for round in 0..ROUNDS {
        let mut child = spawn_child(test, place.text());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Death comes after a number of lines, not after a time.
        let mut left = 40 + round * 17;
        for line in lines {
            let line = line.unwrap();
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
    runtime.block_on(async { handle_the_rest(open(place.text()).await, &mut handled).await });
    assert!(published.len() as u64 >= ROUNDS, "{}", published.len());
    let distinct: BTreeSet<u64> = handled.iter().copied().collect();
    let missing: Vec<_> = published.difference(&distinct).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // In hand: what handlers had, and the few that waited to be recorded behind them.
    let twice = handled.len() - distinct.len();
    let bound = usize::try_from(ROUNDS).unwrap() * CONCURRENCY * 4;
    assert!(twice <= bound, "{twice} of {}", handled.len());
}

fn spawn_child(test: &str, place: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, place)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
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

/// Says what it has done on the standard output, one line each, and never ends by itself.
async fn publish_and_consume_until_killed(engine: Arc<dyn Engine>) {
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        // The parent reads until the end; when it has died, so may the child.
        if writeln!(out, "\n{line}")
            .and_then(|()| out.flush())
            .is_err()
        {
            std::process::exit(1);
        }
    };
    let streams = Streams::new(engine, ServiceConfig::default());
    let handler = move |message: Message| async move {
        say(format!("handled {}", message.id));
        Ok(())
    };
    let subscribed = streams.subscribe("s", "g", options(CONCURRENCY), handler);
    let _consumer = subscribed.await.unwrap();
    loop {
        let id = streams.publish("s", NewMessage::new("body")).await.unwrap();
        say(format!("published {id}"));
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
