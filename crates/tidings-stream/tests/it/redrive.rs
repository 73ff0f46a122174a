//! Bringing dead letters back, on an engine that is watched or disturbed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidings_stream::engine::{ConsumerKey, Engine};
use tidings_stream::{Redrive, ServiceConfig, StartFrom, Streams};

use crate::database::{key, numbered};
use crate::wrapped::{Hook, Wrapped};

const VISIBILITY: Duration = Duration::from_secs(30);

/// Takes as long for the first settlement as the claims of another redrive last.
#[derive(Debug, Default)]
struct SlowSettle {
    is_over: AtomicBool,
}

#[async_trait]
impl Hook for SlowSettle {
    async fn after(&self, call: &'static str) {
        if call == "settle" && !self.is_over.swap(true, Ordering::Relaxed) {
            tokio::time::sleep(VISIBILITY).await;
        }
    }
}

/// Letters that another redrive had claimed when it crashed come after the newest one: that one is not
/// the end.
#[tokio::test(start_paused = true)]
async fn regression_a_redrive_brings_what_a_crashed_one_had_claimed() {
    let engine = Wrapped::new(SlowSettle::default());
    let streams = Streams::new(engine.clone(), ServiceConfig::default());
    streams
        .publish_batch("s.dead", numbered(150))
        .await
        .unwrap();
    let crashed = ConsumerKey {
        group: key("s.dead", "tidings.redrive"),
        consumer: "crashed".into(),
    };
    let opening = engine.open_group(&crashed.group, StartFrom::Earliest);
    opening.await.unwrap();
    let claimed = engine.claim(&crashed, 100, VISIBILITY).await.unwrap();
    assert_eq!(claimed.deliveries.len(), 100);

    let redrive = Redrive::default().with_target("t");
    let redriven = streams.redrive("s.dead", redrive).await.unwrap();
    assert_eq!(redriven.moved, 150);
    assert_eq!(streams.stats("t").await.unwrap().messages, 150);
}
