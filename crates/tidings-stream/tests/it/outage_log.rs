//! What an outage of the store leaves in the log: a line when it begins and a line when it is over, however
//! many parts of however many consumers meet it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidings_stream::{
    Error, HandlerError, Message, NewMessage, ServiceConfig, StartFrom, Streams, SubscribeOptions,
};
use tidings_test_support::Log;
use tokio::sync::watch;

use crate::database::until;
use crate::wrapped::{Hook, Wrapped};

const BEGINS: &str = "the store of streams failed, trying again";
const ENDS: &str = "the store of streams works again";

/// Holds the log of an outage of a server that wakes by notifications against what is expected: a warning about
/// them, one about everything else, their ends, and nothing worse. The outage is over once the last part works.
pub(crate) async fn assert_one_warning_each(log: &Log) {
    until(async || !log.lines(ENDS).is_empty()).await;
    let mut warnings = log.lines("WARN");
    for said in [BEGINS, "lost the notification connection"] {
        let before = warnings.len();
        warnings.retain(|line| !line.contains(said));
        assert_eq!(
            before - warnings.len(),
            1,
            "{said}: {:#?}",
            log.lines("WARN")
        );
    }
    assert!(warnings.is_empty(), "{warnings:#?}");
    assert_eq!(log.lines("ERROR"), [""; 0]);
    assert_eq!(log.lines(ENDS).len(), 1);
}

/// A store that fails all calls while it is down.
#[derive(Debug, Default)]
struct Down(AtomicBool);

#[async_trait]
impl Hook for Down {
    async fn before(&self, _: &'static str, _: usize) -> Result<(), Error> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Error::Backend(std::io::Error::other("away").into()));
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn regression_an_outage_is_one_line_and_so_is_its_end() {
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
    assert_eq!(log.lines(BEGINS), [""; 0]);

    engine.hook.0.store(true, Ordering::Relaxed);
    gate.send_replace(true);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(log.lines(ENDS), [""; 0]);
    engine.hook.0.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(60)).await;

    let begins = log.lines(BEGINS);
    assert_eq!(begins.len(), 1, "{begins:#?}");
    assert!(
        begins[0].contains("WARN") && begins[0].contains("away"),
        "{begins:?}"
    );
    assert_eq!(log.lines(ENDS).len(), 1);
    assert_eq!(log.lines("ERROR"), [""; 0]);
    let [_, ends, dies, _] = &consumers[..] else {
        panic!("there are four");
    };
    assert_eq!(ends.stats().acknowledged, 1);
    assert_eq!(dies.stats().dead_lettered, 1);
}
