//! What an outage of the store leaves in the log: a line when it begins and a line when it is over, from
//! each loop that meets it, however often that tries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidings_stream::{
    Error, HandlerError, Message, NewMessage, ServiceConfig, StartFrom, Streams, SubscribeOptions,
};
use tidings_test_support::Log;
use tokio::sync::watch;

use crate::wrapped::{Hook, Wrapped};

/// What loops say when they fail.
const FAILURES: [&str; 6] = [
    "polling failed",
    "checking in failed",
    "trimming failed",
    "claiming failed",
    "extending claims failed",
    "recording how messages ended failed",
];

/// Holds the log of an outage against what was expected of one consumer: no loop has said anything twice,
/// there is no other warning, and `expected` is among what was said.
pub(crate) fn assert_said_once(log: &Log, expected: &[&str]) {
    let lost = "lost the notification connection";
    let outbox = "emptying the outbox of transactions failed";
    let mut complaints = log.lines("WARN");
    complaints.extend(log.lines("ERROR"));
    for said in FAILURES.into_iter().chain([lost, outbox]) {
        let before = complaints.len();
        complaints.retain(|line| !line.contains(said));
        let times = before - complaints.len();
        let is_expected = expected.contains(&said);
        assert!(
            times <= 1 && (times == 1 || !is_expected),
            "{said}: {times}"
        );
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// A store that fails all calls while it is down.
#[derive(Debug, Default)]
struct Down(AtomicBool);

#[async_trait]
impl Hook for Down {
    async fn before(&self, _: &'static str, _: usize) -> Result<(), Error> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Error::Backend(Arc::new(std::io::Error::other("away"))));
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn regression_an_outage_is_one_line_of_each_loop_and_so_is_its_end() {
    let log = Log::default();
    let _listening = log.listen();
    let engine = Wrapped::new(Down::default());
    let config = ServiceConfig::default().with_janitor_interval(Duration::from_secs(10));
    let streams = Streams::new(engine.clone(), config);
    streams.publish("s", NewMessage::new("")).await.unwrap();
    let gate = watch::Sender::new(false);
    let mut consumers = Vec::new();
    for group in ["idle", "ends", "dies", "works on"] {
        let is_open = gate.subscribe();
        let handler = move |_: Message| {
            let mut is_open = is_open.clone();
            async move {
                is_open.wait_for(|is_open| *is_open).await?;
                match group {
                    "dies" => Err(HandlerError::skip_retry("it cannot be handled")),
                    "works on" => {
                        tokio::time::sleep(Duration::from_secs(3600)).await;
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }
        };
        let start = if group == "idle" {
            StartFrom::Latest
        } else {
            StartFrom::Earliest
        };
        let options = SubscribeOptions::default()
            .with_start(start)
            .with_concurrency(1)
            .with_unlimited_retries()
            .with_handler_timeout(Duration::from_secs(7200));
        consumers.push(
            streams
                .subscribe("s", group, options, handler)
                .await
                .unwrap(),
        );
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(log.lines("failed"), [""; 0]);

    engine.hook.0.store(true, Ordering::Relaxed);
    gate.send_replace(true);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(log.lines("works again"), [""; 0]);
    engine.hook.0.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(60)).await;

    let recovered = |said: &str| said.replace("failed", "works again");
    for said in FAILURES {
        // Of the loops that each consumer has, those that meet the outage.
        let times = match said {
            "claiming failed" => 2,
            "recording how messages ended failed" => 3,
            _ => 1,
        };
        let failures = log.lines(said);
        assert_eq!(failures.len(), times, "{failures:#?}");
        assert!(
            failures.iter().all(|line| line.contains("away")),
            "the cause"
        );
        let ends = log.lines(&recovered(said));
        assert_eq!(ends.len(), times, "{ends:#?}");
    }
    let about_letters = log.lines("what=\"dead letters\"");
    assert_eq!(about_letters.len(), 2, "{about_letters:#?}");
    let [_, ends, dies, _] = &consumers[..] else {
        panic!("there are four");
    };
    assert_eq!(ends.stats().acknowledged, 1);
    assert_eq!(dies.stats().dead_lettered, 1);
}
