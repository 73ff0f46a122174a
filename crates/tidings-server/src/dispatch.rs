//! Webhook attempts: taking deliveries off their durable queue, posting them, and deciding what
//! follows.

use std::sync::Arc;
use std::time::Duration;

use tidings::retry::{RetryPolicy, Schedule};
use tidings::signing::Secret;
use tidings::{AddressPolicy, Attempt, BlockedAddress, ConfigError, Sender, Verdict};
use tidings_sqlite::Database;
use tidings_stream::{
    Consumer, HandlerError, Retention, StartFrom, StreamName, Streams, SubscribeOptions,
};

use crate::config::Config;
use crate::deliveries::{self, AttemptRecord, Next, State};
use crate::endpoints;
use crate::explain::explain;

/// The durable queue of deliveries; each message is a delivery's id.
pub(crate) const STREAM: &str = "webhooks";

/// The consumer group that works on it.
const GROUP: &str = "dispatch";

/// Beyond the longest attempt, how long a claimed delivery stays hidden from other workers: the
/// time that recording its outcome may take.
const RECORDING_TIME: Duration = Duration::from_secs(30);

/// Performs webhook attempts.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    database: Database,
    sender: Sender,
    addresses: AddressPolicy,
    retry: RetryPolicy,
    first_wait: Duration,
    timeout: Duration,
}

/// Why an endpoint cannot be posted to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Blocked(#[from] BlockedAddress),
}

impl Dispatcher {
    pub(crate) fn new(database: Database, config: &Config) -> Result<Self, ConfigError> {
        let addresses = if config.webhook_private_addresses {
            AddressPolicy::Any
        } else {
            AddressPolicy::PublicOnly
        };
        let (first_wait, waits) = match config.webhook_schedule.as_slice() {
            [] => (Duration::ZERO, [].as_slice()),
            [first, rest @ ..] => (*first, rest),
        };
        Ok(Self {
            database,
            sender: Sender::builder().address_policy(addresses).build()?,
            addresses,
            retry: RetryPolicy::new(Schedule::new(waits.iter().copied())?),
            first_wait,
            timeout: config.webhook_timeout,
        })
    }

    /// Describes an endpoint to the sender, or says why it cannot be posted to.
    pub(crate) fn target(
        &self,
        url: &str,
        secret: Secret,
    ) -> Result<tidings::Endpoint, TargetError> {
        let target = tidings::Endpoint::builder(url)
            .secret(secret)
            .timeout(self.timeout)
            .build()?;
        self.addresses.check_url(target.url())?;
        Ok(target)
    }

    /// Starts the workers.
    pub(crate) async fn start(
        self: &Arc<Self>,
        streams: &Streams,
        config: &Config,
    ) -> Result<Consumer, tidings_stream::Error> {
        // What has been acknowledged is of no more use: the deliveries have rows of their own.
        let acknowledged = Retention::default().with_max_len(1);
        streams.set_retention(STREAM, acknowledged).await?;
        let options = SubscribeOptions::default()
            .with_start(StartFrom::Earliest)
            .with_concurrency(config.webhook_workers)
            // The schedule decides when to give up, and the delivery's own row keeps count.
            .with_unlimited_retries()
            .with_visibility_timeout(self.timeout + RECORDING_TIME)
            .with_shutdown_timeout(config.shutdown_timeout);
        let dispatcher = Arc::clone(self);
        streams
            .subscribe(
                STREAM,
                GROUP,
                options,
                move |message: tidings_stream::Message| {
                    let dispatcher = Arc::clone(&dispatcher);
                    async move { dispatcher.handle(&message).await }
                },
            )
            .await
    }

    async fn handle(&self, queued: &tidings_stream::Message) -> Result<(), HandlerError> {
        let id = std::str::from_utf8(&queued.payload)
            .map_err(HandlerError::skip_retry)?
            .to_owned();
        let wanted = id.clone();
        let work = self
            .database
            .read(move |connection| {
                deliveries::work(connection, &wanted).map_err(tidings_sqlite::Error::from)
            })
            .await
            .map_err(HandlerError::retry)?;
        let Some(work) = work else { return Ok(()) };
        if work.attempts == 0 && queued.attempt == 1 && !self.first_wait.is_zero() {
            return Err(HandlerError::retry_after(self.first_wait, Postponed));
        }
        let Some(endpoint) = work.endpoint.filter(|endpoint| endpoint.enabled) else {
            return self.cancel(id).await.map_err(HandlerError::retry);
        };
        let number = work.attempts + 1;
        let target = match self.target(&endpoint.url, endpoint.secret) {
            Ok(target) => target,
            // It was fine when it was created: the server has stricter settings since.
            Err(error) => return self.refuse(id, &error).await.map_err(HandlerError::retry),
        };
        let attempt = self.sender.attempt(&target, &work.message, number).await;
        let next = self.decide(&attempt, number);
        tracing::debug!(
            delivery = id,
            endpoint = endpoint.id,
            number,
            status = ?attempt.status(),
            ?next,
            "a webhook was attempted"
        );
        self.record(id, endpoint.id, &attempt, next)
            .await
            .map_err(HandlerError::retry)?;
        match next {
            Next::Finish(_) => Ok(()),
            Next::Retry(after) => Err(HandlerError::retry_after(after, Postponed)),
        }
    }

    fn decide(&self, attempt: &Attempt, number: u32) -> Next {
        match attempt.verdict() {
            Verdict::Delivered => Next::Finish(State::Delivered),
            Verdict::Permanent | Verdict::Gone => Next::Finish(State::Failed),
            Verdict::Retryable => {
                let mut random = fastrand::Rng::new();
                match self.retry.next_delay(
                    number,
                    Duration::ZERO,
                    attempt.retry_after(),
                    &mut random,
                ) {
                    Some(delay) => Next::Retry(delay),
                    None => Next::Finish(State::Failed),
                }
            }
        }
    }

    async fn record(
        &self,
        delivery_id: String,
        endpoint_id: String,
        attempt: &Attempt,
        next: Next,
    ) -> Result<(), tidings_sqlite::Error> {
        let gone = attempt.verdict() == Verdict::Gone;
        let record = AttemptRecord {
            number: attempt.number,
            started_at: attempt.started_at,
            duration: attempt.elapsed,
            status: attempt.status().map(|status| status.as_u16()),
            error: attempt.result.as_ref().err().map(|error| explain(error)),
            response: match &attempt.result {
                Ok(answer) => String::from_utf8_lossy(&answer.body_head).into_owned(),
                Err(_) => String::new(),
            },
        };
        self.database
            .write_relaxed(move |tx| {
                deliveries::record(tx, &delivery_id, &record, next)?;
                if gone {
                    endpoints::disable(tx, &endpoint_id, "the receiver answered 410 Gone")?;
                }
                Ok(())
            })
            .await
    }

    /// Ends a delivery whose endpoint this server does not post to.
    async fn refuse(&self, id: String, why: &TargetError) -> Result<(), tidings_sqlite::Error> {
        tracing::warn!(delivery = id, %why, "an endpoint can no longer be posted to");
        self.database
            .write_relaxed(move |tx| Ok(deliveries::finish(tx, &id, State::Failed)?))
            .await
    }

    async fn cancel(&self, id: String) -> Result<(), tidings_sqlite::Error> {
        self.database
            .write_relaxed(move |tx| Ok(deliveries::finish(tx, &id, State::Cancelled)?))
            .await
    }
}

/// The delivery has a next attempt; its own row says why.
#[derive(Debug, thiserror::Error)]
#[error("the delivery waits for its next attempt")]
struct Postponed;

/// The stream's full name.
pub(crate) fn stream_name(streams: &Streams) -> Result<StreamName, tidings_stream::Error> {
    streams.name(STREAM)
}
