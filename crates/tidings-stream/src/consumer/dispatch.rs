//! Claiming what free handlers can start on, and the order of closing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::settler::Settling;
use super::{CloseReport, Subscription, attempt, settler};
use crate::engine::{Claimed, Delivery, Engine};
use crate::wake::Listener;
use crate::{Error, Handler};

/// Most messages of one claim. More would only make the first of them wait for the last.
const MAX_CLAIM: usize = 512;

/// Ends that may wait to be recorded. A handler whose end finds no room keeps its permit, so that a
/// slow store slows the claiming down.
const SETTLE_QUEUE: usize = 512;

/// Time for dropped handlers to go, and for the last ends to be recorded, once closing has waited
/// its time.
const GRACE: Duration = Duration::from_secs(1);

/// Waits between claims while the store fails: it doubles from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// Works through the group's messages until closing, then closes.
pub(crate) async fn run<H: Handler>(
    subscription: Arc<Subscription>,
    handler: H,
    listener: Listener,
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
    dispatch.claim_until_closing(listener).await;

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
    tracing::info!(
        stream = %subscription.group().stream, group = %subscription.group().group,
        finished = report.finished, released = report.released, abandoned = report.abandoned,
        "a consumer closed"
    );
    report
}

struct Dispatch<H> {
    subscription: Arc<Subscription>,
    handler: Arc<H>,
    running: TaskTracker,
    abort: CancellationToken,
    ends: mpsc::Sender<Settling>,
}

impl<H: Handler> Dispatch<H> {
    async fn claim_until_closing(&self, mut listener: Listener) {
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
        while let Some(free) = closing.run_until_cancelled(all_free(&permits)).await {
            let Some(free) = free else { return };
            listener.mark_seen();
            let room = free.num_permits();
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
                    let poll = jittered(options.poll_interval);
                    next_due.map_or(poll, |due| due.min(poll))
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
                () = listener.woken() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Gives every claimed message to a handler of its own.
    async fn start_all(
        &self,
        deliveries: Vec<Delivery>,
        mut free: OwnedSemaphorePermit,
        lease_end: Instant,
    ) {
        let max_attempts = self.subscription.options.max_attempts();
        for delivery in deliveries {
            let end = match free.split(1) {
                _ if max_attempts.is_some_and(|max| delivery.message.attempt > max) => {
                    attempt::poisoned(&self.subscription, &delivery)
                }
                Some(permit) => {
                    self.start(delivery, permit, lease_end);
                    continue;
                }
                // The engine gave more than it was asked for.
                None => attempt::released(delivery.receipt),
            };
            self.settle(end).await;
        }
    }

    fn start(&self, delivery: Delivery, permit: OwnedSemaphorePermit, lease_end: Instant) {
        let subscription = Arc::clone(&self.subscription);
        let handler = Arc::clone(&self.handler);
        let (abort, ends) = (self.abort.clone(), self.ends.clone());
        self.running.spawn(async move {
            let end = attempt::run(&subscription, &*handler, delivery, lease_end, &abort).await;
            if let Some(end) = end {
                send(&ends, end).await;
            }
            drop(permit);
        });
    }

    async fn settle(&self, end: Settling) {
        send(&self.ends, end).await;
    }
}

async fn send(ends: &mpsc::Sender<Settling>, end: Settling) {
    if let Err(unsent) = ends.send(end).await {
        // Closing has counted this one as abandoned; its claim runs out.
        let id = unsent.0.settlement.receipt.id;
        tracing::warn!(%id, "the end of a message came after its consumer was closed");
    }
}

/// Waits until a handler is free, then takes all that are. `None` never happens: nobody closes the
/// semaphore.
async fn all_free(permits: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    let mut free = Arc::clone(permits).acquire_owned().await.ok()?;
    let more = permits.available_permits().min(MAX_CLAIM - 1);
    // Nobody else takes permits, so what was available a moment ago still is.
    if let Ok(more) = u32::try_from(more)
        && let Ok(more) = Arc::clone(permits).try_acquire_many_owned(more)
    {
        free.merge(more);
    }
    Some(free)
}

/// Spreads the polls of many consumers that were started together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.875 + fastrand::f64() / 4.0)
}
