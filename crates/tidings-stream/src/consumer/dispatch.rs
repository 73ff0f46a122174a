//! Claiming what free handlers can start on, and the order of closing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::poller::Registration;
use super::settler::Settling;
use super::{CloseReport, Subscription, attempt, settler};
use crate::engine::wake::WakeReceiver;
use crate::engine::{Claimed, Delivery};
use crate::{BatchHandler, Error};

/// Most messages of one claim, unless a single batch is larger. More would only make the first of
/// them wait for the last.
const MAX_CLAIM: usize = 512;

/// Handlers whose ends may wait to be recorded. A handler whose end finds no room keeps its permit, so that a
/// slow store slows the claiming down.
const SETTLE_QUEUE: usize = 512;

/// Time for dropped handlers to go, and for the last ends to be recorded, once closing has waited
/// its time.
const GRACE: Duration = Duration::from_secs(1);

/// Waits between claims while the store fails: it doubles from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// Works through the group's messages until closing, then closes.
pub(crate) async fn run<H: BatchHandler>(
    subscription: Arc<Subscription>,
    handler: H,
    wakes: WakeReceiver,
    registration: Registration,
) -> CloseReport {
    let (ends, queue) = mpsc::channel(SETTLE_QUEUE);
    let (stop, give_up) = (CancellationToken::new(), CancellationToken::new());
    let abort = CancellationToken::new();
    // Handlers do not outlive this task, whatever ends it.
    let _abort = abort.clone().drop_guard();
    let mut settling = AbortOnDropHandle::new(tokio::spawn(settler::run(
        Arc::clone(&subscription),
        queue,
        stop.clone(),
        give_up.clone(),
    )));
    let dispatch = Dispatch {
        subscription: Arc::clone(&subscription),
        handler: Arc::new(handler),
        running: TaskTracker::new(),
        abort: abort.clone(),
        ends,
    };
    dispatch.claim_until_closing(wakes, registration).await;

    let Dispatch { running, ends, .. } = dispatch;
    drop(ends);
    running.close();
    let wait = subscription.options.shutdown_timeout;
    if tokio::time::timeout(wait, running.wait()).await.is_err() {
        abort.cancel();
        // What does not react blocks its thread, and cannot be waited for.
        drop(tokio::time::timeout(GRACE, running.wait()).await);
    }
    let stuck = running.len() as u64;
    stop.cancel();
    let ended = if let Ok(ended) = tokio::time::timeout(GRACE, &mut settling).await {
        ended
    } else {
        give_up.cancel();
        settling.await
    };
    let mut report = ended.unwrap_or_else(|error| {
        tracing::error!(%error, "recording the ends of messages broke off");
        CloseReport::default()
    });
    report.abandoned += stuck;
    check_out(&subscription).await;
    tracing::info!(
        stream = %subscription.group().stream, group = %subscription.group().group,
        finished = report.finished, released = report.released, abandoned = report.abandoned,
        "a consumer closed"
    );
    report
}

/// Leaves the members of the group. Where that fails, they learn it when the last word of this one
/// has run out.
async fn check_out(subscription: &Subscription) {
    let gone = Arc::from([subscription.consumer.clone()]);
    let checking_out = subscription.engine.check_in(gone, Duration::ZERO);
    match tokio::time::timeout(GRACE, checking_out).await {
        Ok(Ok(()) | Err(Error::Closed)) => {}
        Ok(Err(error)) => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "a consumer could not say that it has gone");
        }
        Err(_) => tracing::warn!("a consumer had no time to say that it has gone"),
    }
}

struct Dispatch<H> {
    subscription: Arc<Subscription>,
    handler: Arc<H>,
    running: TaskTracker,
    abort: CancellationToken,
    ends: mpsc::Sender<Vec<Settling>>,
}

impl<H: BatchHandler> Dispatch<H> {
    async fn claim_until_closing(&self, mut wakes: WakeReceiver, registration: Registration) {
        let Subscription {
            engine,
            consumer,
            options,
            closing,
            ..
        } = &*self.subscription;
        let key = &consumer.group;
        let permits = Arc::new(Semaphore::new(options.concurrency));
        let mut pause = FIRST_PAUSE;
        let most = (MAX_CLAIM / options.max_batch).clamp(1, options.concurrency);
        let free = async || {
            self.subscription.unpaused().await;
            free(&permits, most).await
        };
        while let Some(free) = closing.run_until_cancelled(free()).await {
            let Some(free) = free else { return };
            // A handler that became free at the same moment would be seen first.
            if closing.is_cancelled() {
                return;
            }
            wakes.mark_seen();
            let room = free.num_permits() * options.max_batch;
            // The store's clock for the claim starts later than this one.
            let lease_end = Instant::now() + options.visibility_timeout;
            // A claim is never broken off: what it has taken must be handled or handed back.
            let wait = match engine
                .claim(consumer, room, options.visibility_timeout)
                .await
            {
                Ok(Claimed {
                    deliveries,
                    next_due,
                }) => {
                    pause = FIRST_PAUSE;
                    let may_have_more = deliveries.len() >= room;
                    self.start_all(deliveries, free, lease_end).await;
                    if may_have_more {
                        continue;
                    }
                    next_due
                }
                Err(Error::Closed) => {
                    tracing::error!(stream = %key.stream, group = %key.group, "the store is closed");
                    closing.cancelled().await;
                    return;
                }
                Err(error) => {
                    tracing::error!(
                        stream = %key.stream, group = %key.group,
                        error = &error as &dyn std::error::Error, "claiming failed"
                    );
                    drop(free);
                    closing
                        .run_until_cancelled(tokio::time::sleep(jittered(pause)))
                        .await;
                    pause = (pause * 2).min(LAST_PAUSE);
                    continue;
                }
            };
            tokio::select! {
                () = closing.cancelled() => return,
                () = wakes.woken() => {}
                () = registration.polled() => {}
                () = after(wait) => {}
            }
        }
    }

    /// Gives the claimed messages to free handlers, as many to each as it takes at once.
    async fn start_all(
        &self,
        deliveries: Vec<Delivery>,
        mut free: OwnedSemaphorePermit,
        lease_end: Instant,
    ) {
        let options = &self.subscription.options;
        let max_attempts = options.max_attempts();
        let is_poison =
            |delivery: &Delivery| max_attempts.is_some_and(|max| delivery.message.attempt > max);
        let (poison, mut healthy): (Vec<_>, Vec<_>) = deliveries.into_iter().partition(is_poison);
        while !healthy.is_empty() {
            let rest = healthy.split_off(options.max_batch.min(healthy.len()));
            if let Some(permit) = free.split(1) {
                self.start(healthy, permit, lease_end);
            } else {
                // The engine gave more than it was asked for.
                let ends = healthy.iter().map(|d| attempt::released(d.receipt));
                send(&self.ends, ends.collect()).await;
            }
            healthy = rest;
        }
        let ends = poison
            .iter()
            .map(|d| attempt::poisoned(&self.subscription, d));
        send(&self.ends, ends.collect()).await;
    }

    fn start(&self, deliveries: Vec<Delivery>, permit: OwnedSemaphorePermit, lease_end: Instant) {
        let subscription = Arc::clone(&self.subscription);
        let handler = Arc::clone(&self.handler);
        let (abort, ends) = (self.abort.clone(), self.ends.clone());
        self.running.spawn(async move {
            let end = attempt::run(&subscription, &*handler, deliveries, lease_end, &abort).await;
            send(&ends, end).await;
            drop(permit);
        });
    }
}

async fn send(ends: &mpsc::Sender<Vec<Settling>>, end: Vec<Settling>) {
    if !end.is_empty()
        && let Err(unsent) = ends.send(end).await
    {
        // Closing has counted these as abandoned; their claims run out.
        for Settling { settlement, .. } in unsent.0 {
            let id = settlement.receipt.id;
            tracing::warn!(%id, "the end of a message came after its consumer was closed");
        }
    }
}

/// Waits until a handler is free, then takes all that are, up to a number. `None` never happens:
/// nobody closes the semaphore.
async fn free(permits: &Arc<Semaphore>, most: usize) -> Option<OwnedSemaphorePermit> {
    let mut free = Arc::clone(permits).acquire_owned().await.ok()?;
    if most > 1 {
        // Handlers that end together become free together: one claim is for all of them.
        tokio::task::yield_now().await;
    }
    let more = permits.available_permits().min(most - 1);
    // Nobody else takes permits, so what was available a moment ago still is.
    if let Ok(more) = u32::try_from(more)
        && let Ok(more) = Arc::clone(permits).try_acquire_many_owned(more)
    {
        free.merge(more);
    }
    Some(free)
}

async fn after(delay: Option<Duration>) {
    match delay {
        Some(delay) => tokio::time::sleep(delay).await,
        None => std::future::pending().await,
    }
}

/// Spreads the claims of many consumers that met the same failure.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.875 + fastrand::f64() / 4.0)
}
