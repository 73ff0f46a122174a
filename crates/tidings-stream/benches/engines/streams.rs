use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_bench::Rate;
use tidings_stream::engine::Engine;
use tidings_stream::{
    Message, NewMessage, Retention, ServiceConfig, StartFrom, Streams, SubscribeOptions,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::raw::PAYLOAD;
use crate::rounds::{middle, rate};

const STREAM: &str = "bench";

/// Streams as a program uses them.
pub(crate) struct Ours {
    streams: Streams,
    groups: AtomicUsize,
}

impl Ours {
    pub(crate) async fn new(engine: Arc<dyn Engine>) -> Self {
        let streams = Streams::new(engine, ServiceConfig::default());
        streams
            .set_retention(STREAM, Retention::default())
            .await
            .unwrap();
        Self {
            streams,
            groups: AtomicUsize::new(0),
        }
    }

    pub(crate) async fn publish(&self, batch: usize) {
        let messages = vec![NewMessage::new(&PAYLOAD[..]); batch];
        self.streams.publish_batch(STREAM, messages).await.unwrap();
    }

    pub(crate) async fn fill(&self, count: usize) {
        for _ in 0..count / 1000 {
            self.publish(1000).await;
        }
    }

    /// Publishes by 100, in messages per second.
    pub(crate) async fn publishing(&self) -> Rate {
        let mut rates = Vec::new();
        for _ in 0..5 {
            rates.push(rate(1, 100, async || self.publish(100).await).await);
        }
        middle(rates)
    }

    /// Consumes by 100, in messages per second.
    pub(crate) async fn consuming(&self) -> Rate {
        let mut rates = Vec::new();
        for _ in 0..5 {
            rates.push(self.consume(20_000, 4, 100).await);
        }
        middle(rates)
    }

    /// Publishes so many for a new group, consumes them, and returns how many that was per second, with the time
    /// from one batch to the next.
    pub(crate) async fn consume(&self, count: usize, handlers: usize, batch: usize) -> Rate {
        let number = self.groups.fetch_add(1, Ordering::Relaxed);
        let group = format!("g{number}");
        let options = SubscribeOptions::default()
            .with_start(StartFrom::Latest)
            .with_poll_interval(Duration::from_secs(60))
            .with_concurrency(handlers)
            .with_max_batch(batch);
        let done = Arc::new(AtomicUsize::new(0));
        let all = Arc::new(Notify::new());
        let batches = Arc::new(Mutex::new(Vec::with_capacity(count / batch + 1)));
        let handler = {
            let (taken, all, batches) = (Arc::clone(&done), Arc::clone(&all), Arc::clone(&batches));
            move |messages: Vec<Message>| {
                batches.lock().unwrap().push(Instant::now());
                if taken.fetch_add(messages.len(), Ordering::Relaxed) + messages.len() >= count {
                    all.notify_one();
                }
                async { Ok(()) }
            }
        };
        // The group is made first, so that what is published is what it consumes.
        let first = self
            .streams
            .subscribe_batch(STREAM, &group, options.clone(), handler.clone());
        first.await.unwrap().close().await;
        for _ in 0..count.div_ceil(1000) {
            self.publish(count.min(1000)).await;
        }
        let started = Instant::now();
        let consumer = self
            .streams
            .subscribe_batch(STREAM, &group, options, handler);
        let consumer = consumer.await.unwrap();
        all.notified().await;
        // Closing waits until the last acknowledgement is recorded.
        consumer.close().await;
        let elapsed = started.elapsed();
        self.streams.delete_group(STREAM, &group).await.unwrap();
        let batches = batches.lock().unwrap();
        let pauses = batches.windows(2).map(|pair| pair[1] - pair[0]);
        Rate::new(count, elapsed, &pauses.collect())
    }
}
