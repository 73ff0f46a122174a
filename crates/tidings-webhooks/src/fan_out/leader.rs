//! One instance at a time makes deliveries of accepted events: so they are made in the order of
//! acceptance, whichever instance accepted.
//!
//! The lead is a lease like those of lanes. When the leader stops, another instance takes over at its next
//! look; when it has crashed, once the lease is over.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidings_stream::{
    Consumer, Context, Message, RetryDelay, StartFrom, Streams, SubscribeOptions,
    batch_with_context,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::{FanOut, GROUP, MAKING, STREAM, UNREADABLE};
use crate::clock::later;
use crate::store::LeadRequest;
use crate::{Error, StoreError};

/// Messages that one call of the fan-out takes.
const BATCH: usize = 512;

/// How long messages wait that the store has refused, and how long at most.
const DELAYS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// The longest pause between two attempts to lead while the store fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What makes deliveries while this instance leads.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) fan_out: Arc<FanOut>,
    pub(crate) streams: Streams,
    /// Cancelled when the lead is to be given up.
    pub(crate) closing: CancellationToken,
}

impl Leader {
    /// Makes sure that what is accepted waits for the fan-out.
    pub(crate) async fn prepare(&self) -> Result<(), Error> {
        let group = self
            .streams
            .create_group(STREAM, GROUP, StartFrom::Earliest);
        Ok(group.await?)
    }

    /// Leads whenever no other instance does, until it is closing.
    pub(crate) async fn run(self) {
        let poll = self.fan_out.lanes.poll_interval();
        let mut failures = 0_u32;
        while !self.closing.is_cancelled() {
            let pause = match self.lead().await {
                Ok(()) => {
                    failures = 0;
                    poll
                }
                Err(Error::Store(StoreError::Closed)) => return,
                Err(error) => {
                    self.fan_out.lanes.store_failed(&error, MAKING);
                    failures = failures.saturating_add(1);
                    (poll * failures).min(LONGEST_PAUSE)
                }
            };
            let pause = pause.mul_f64(0.75 + fastrand::f64() / 2.0);
            let pause = tokio::time::sleep(pause);
            self.closing.run_until_cancelled(pause).await;
        }
    }

    /// Leads if no other instance does, until the lead is lost or to be given up.
    async fn lead(&self) -> Result<(), Error> {
        let Some(until) = self.ask().await? else {
            return Ok(());
        };
        let led = self.make_deliveries(until).await;
        let resigned = self
            .fan_out
            .store
            .resign(self.fan_out.lanes.instance())
            .await;
        led?;
        Ok(resigned?)
    }

    async fn make_deliveries(&self, until: Timestamp) -> Result<(), Error> {
        let consumer = self.subscribe().await?;
        let fan_out = Arc::clone(&self.fan_out);
        let deferred = tokio::spawn(async move { fan_out.make_deferred().await });
        let deferred = AbortOnDropHandle::new(deferred);
        let kept = tokio::select! {
            kept = self.keep(until) => kept,
            // It says why in the log; the next lead subscribes again.
            _ended = consumer.ended() => Ok(()),
        };
        drop(deferred);
        // A batch that is not done in time is made again, by the next leader.
        consumer.close().await;
        kept
    }

    /// Renews the lead, until it is lost or to be given up.
    async fn keep(&self, mut until: Timestamp) -> Result<(), Error> {
        let lanes = &self.fan_out.lanes;
        loop {
            let pause = tokio::time::sleep(lanes.lease() / 3);
            if self.closing.run_until_cancelled(pause).await.is_none() {
                return Ok(());
            }
            match self.ask().await {
                Ok(Some(renewed)) => until = renewed,
                Ok(None) => {
                    tracing::warn!(
                        "another instance makes the deliveries of new events now, because the lease of this one has ended"
                    );
                    return Ok(());
                }
                Err(error) if self.fan_out.clock.now() >= until => return Err(error),
                Err(error) => {
                    let what = "renewing the lease for making deliveries";
                    lanes.store_failed(&error, what);
                }
            }
        }
    }

    /// Asks for the lead; returns when it ends.
    async fn ask(&self) -> Result<Option<Timestamp>, Error> {
        let (lanes, now) = (&self.fan_out.lanes, self.fan_out.clock.now());
        let until = later(now, lanes.lease());
        let lead = LeadRequest {
            instance: lanes.instance().to_owned(),
            now,
            until,
        };
        Ok(self.fan_out.store.lead(lead).await?.then_some(until))
    }

    async fn subscribe(&self) -> Result<Consumer, Error> {
        let (first, longest) = DELAYS;
        let claims = self.fan_out.claims();
        let options = SubscribeOptions::default()
            .with_start(StartFrom::Earliest)
            // One batch at a time: deliveries are made in the order of acceptance.
            .with_concurrency(1)
            .with_max_batch(BATCH)
            .with_unlimited_retries()
            .with_dead_letter_stream(UNREADABLE)
            .with_retry_delay(RetryDelay::exponential(first, longest))
            .with_visibility_timeout(claims)
            // While the store fails a batch is kept, and with it its place before later ones.
            .with_handler_timeout(Duration::MAX)
            .with_shutdown_timeout(claims);
        let fan_out = Arc::clone(&self.fan_out);
        let handler = batch_with_context(move |messages: Vec<Message>, context: Context| {
            let fan_out = Arc::clone(&fan_out);
            async move {
                let span = tracing::debug_span!("webhook_fan_out", messages = messages.len());
                let handled = fan_out.handle(messages, context.closing());
                handled.instrument(span).await
            }
        });
        let subscribed = self
            .streams
            .subscribe_batch(STREAM, GROUP, options, handler);
        Ok(subscribed.await?)
    }
}
