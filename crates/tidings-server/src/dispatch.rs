//! Webhook attempts: taking deliveries off their durable queue, posting them, and deciding what
//! follows.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
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
use crate::error::explain;
use crate::shares::Shares;

/// The name of the durable stream of deliveries.
const STREAM: &str = "webhooks";

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
    timeout: Duration,
    shares: Shares,
}

/// Where accepted deliveries are queued.
#[derive(Debug)]
pub(crate) struct WebhookQueue {
    /// The durable stream; each message is a delivery's id.
    pub(crate) stream: StreamName,
    first_wait: Duration,
}

impl WebhookQueue {
    pub(crate) fn new(streams: &Streams, config: &Config) -> Result<Self, tidings_stream::Error> {
        Ok(Self {
            stream: streams.name(STREAM)?,
            first_wait: config.webhook_schedule.first().copied().unwrap_or_default(),
        })
    }

    /// When a delivery that is accepted now shall be attempted first.
    pub(crate) fn first_due(&self) -> Timestamp {
        Timestamp::now()
            .checked_add(self.first_wait)
            .unwrap_or(Timestamp::MAX)
    }
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
        let addresses = config.address_policy();
        // The first wait is before the first attempt, which is not a retry.
        let waits = config.webhook_schedule.iter().skip(1).copied();
        Ok(Self {
            database,
            sender: Sender::builder().address_policy(addresses).build()?,
            addresses,
            retry: RetryPolicy::new(Schedule::new(waits)?),
            timeout: config.webhook_timeout,
            shares: Shares::of(config.webhook_workers),
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
        // The queue brings a delivery early when a crash came between recording an attempt and
        // giving the delivery back. Its row knows when it is due.
        if let Some(early) = work.due_at.and_then(time_until) {
            return Err(HandlerError::retry_after(early, Postponed));
        }
        let Some(endpoint) = work
            .endpoint
            .filter(|endpoint| endpoint.disabled_because.is_none())
        else {
            let why = "the endpoint was removed or disabled";
            return self.end(id, State::Cancelled, why.to_owned()).await;
        };
        let Some(_share) = self.shares.take(&endpoint.id) else {
            return Err(HandlerError::retry_after(
                busy_wait(queued.attempt),
                Postponed,
            ));
        };
        let number = work.attempts + 1;
        let target = match self.target(&endpoint.url, endpoint.secret) {
            Ok(target) => target,
            // It was fine when it was created: the server has stricter settings since.
            Err(error) => return self.end(id, State::Failed, explain(&error)).await,
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
                    let why = "the receiver answered 410 Gone";
                    endpoints::disable(tx, &endpoint_id, why)?;
                    deliveries::cancel_all(tx, &endpoint_id, why)?;
                }
                Ok(())
            })
            .await
    }

    /// Ends a delivery without another attempt.
    async fn end(&self, id: String, state: State, why: String) -> Result<(), HandlerError> {
        self.database
            .write_relaxed(move |tx| {
                deliveries::finish(tx, &id, state, Some(&why)).map_err(tidings_sqlite::Error::from)
            })
            .await
            .map_err(HandlerError::retry)
    }
}

/// How long from now until then; `None` when that is past.
fn time_until(due_at: Timestamp) -> Option<Duration> {
    Duration::try_from(due_at.duration_since(Timestamp::now()))
        .ok()
        .filter(|wait| !wait.is_zero())
}

/// How long a delivery waits whose endpoint has its share of the workers: longer each time, so that
/// a long backlog does not keep the queue busy with itself.
fn busy_wait(times_claimed: u32) -> Duration {
    let wait = Duration::from_millis(250) * times_claimed.min(40);
    wait + wait.mul_f64(fastrand::f64() / 2.0)
}

/// The delivery has a next attempt; its own row says why.
#[derive(Debug, thiserror::Error)]
#[error("the delivery waits for its next attempt")]
struct Postponed;
