//! Claiming what free handlers can start on, and the order of closing.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use tidings_reconnect::Trouble;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::overdue::Reclaimed;
use super::poller::Registration;
use super::settler::{Ends, Settling};
use super::time_limit::margin;
use super::{CloseReport, EndReason, Subscription, after, attempt, overdue, settler};
use crate::engine::wake::WakeReceiver;
use crate::engine::{Claimed, ClaimedMessage, GroupKey, Receipt};
use crate::{BatchHandler, Error};

/// Most messages of one claim, unless a single batch is larger. More would only make the first of
/// them wait for the last.
const MAX_CLAIM: usize = 512;

/// Time for dropped handlers to go, and for the last ends to be recorded, once closing has waited
/// its time.
const GRACE: Duration = Duration::from_secs(1);

/// Pauses between claims while the store fails: they double from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// Works through the group's messages until closing, or until that cannot continue, then closes.
pub(crate) async fn run<H: BatchHandler>(
    subscription: Arc<Subscription>,
    handler: H,
    wakes: WakeReceiver,
    registration: Registration,
) -> (EndReason, CloseReport) {
    let (ends, queue) = settler::queue();
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
        runtime: Arc::new(HandlerRuntime {
            subscription: Arc::clone(&subscription),
            handler,
            abort: abort.clone(),
            ends,
        }),
        running: TaskTracker::new(),
    };
    // In a task of its own, so that it costs the one that claims nothing.
    let keeping = tokio::spawn(overdue::keep(Arc::clone(&subscription)).boxed());
    let keeping = AbortOnDropHandle::new(keeping);
    let wait = subscription.options.shutdown_timeout;
    let mut closing_since = None;
    let reason = {
        let mut claiming = pin!(dispatch.claim_until_closing(wakes, registration));
        tokio::select! {
            biased;
            reason = &mut claiming => reason,
            () = subscription.closing.cancelled() => {
                closing_since = Some(Instant::now());
                // A claim that is under way gets time, since what it takes can be handed back then.
                let ended = tokio::time::timeout(wait.max(GRACE), claiming).await;
                ended.unwrap_or(EndReason::Closed)
            }
        }
    };
    // If it could not continue, its handlers are asked to close, too.
    subscription.closing.cancel();

    let Dispatch {
        running, runtime, ..
    } = dispatch;
    let unsent = runtime.ends.unsent();
    // With the last handler that has it, the queue of ends is closed.
    drop(runtime);
    running.close();
    let wait = wait.saturating_sub(closing_since.map_or(Duration::ZERO, |since| since.elapsed()));
    if tokio::time::timeout(wait, running.wait()).await.is_err() {
        abort.cancel();
        // What does not react blocks its thread, and cannot be waited for.
        drop(tokio::time::timeout(GRACE, running.wait()).await);
    }
    keeping.abort();
    // It ends in no other way.
    drop(keeping.await);
    stop.cancel();
    let ended = if let Ok(ended) = tokio::time::timeout(GRACE, &mut settling).await {
        ended
    } else {
        give_up.cancel();
        settling.await
    };
    let mut report = ended.unwrap_or_else(|error| {
        tracing::error!(%error, "the task that records how messages ended failed, their claims expire");
        CloseReport::default()
    });
    // What handlers have that did not react, or came after the last end was recorded.
    report.abandoned += subscription.overdue.in_hand() + unsent.load(Ordering::Relaxed);
    check_out(&subscription).await;
    tracing::info!(
        stream = %subscription.group().stream, group = %subscription.group().group,
        finished = report.finished, released = report.released, abandoned = report.abandoned,
        reason = ?reason, "a consumer closed"
    );
    (reason, report)
}

/// Leaves the members of the group. If that fails, the consumer counts as alive until its last check-in
/// runs out.
async fn check_out(subscription: &Subscription) {
    let GroupKey { stream, group } = subscription.group();
    let gone = Arc::from([subscription.consumer.clone()]);
    let checking_out = subscription.engine.check_in(gone, Duration::ZERO);
    let error = match tokio::time::timeout(GRACE, checking_out).await {
        Ok(Ok(()) | Err(Error::Closed)) => return,
        Ok(Err(error)) => Some(error),
        Err(_elapsed) => None,
    };
    tracing::warn!(
        error = error.as_ref().map(|error| error as &dyn std::error::Error), %stream, %group,
        "a closed consumer could not leave its group, and counts as alive until its last check-in ends"
    );
}

struct Dispatch<H> {
    subscription: Arc<Subscription>,
    runtime: Arc<HandlerRuntime<H>>,
    running: TaskTracker,
}

/// What the tasks of handlers share.
struct HandlerRuntime<H> {
    subscription: Arc<Subscription>,
    handler: H,
    abort: CancellationToken,
    ends: Ends,
}

impl<H: BatchHandler> Dispatch<H> {
    async fn claim_until_closing(
        &self,
        mut wakes: WakeReceiver,
        registration: Registration,
    ) -> EndReason {
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
        let mut claiming = self.subscription.outages.part("claiming");
        let mut slowness = Trouble::new();
        let most = (MAX_CLAIM / options.max_batch).clamp(1, options.concurrency);
        let free = async || {
            self.subscription.unpaused().await;
            free(&permits, most).await
        };
        while let Some(free) = closing.run_until_cancelled(free()).await {
            let Some(free) = free else { break };
            // The pause may have begun while no handler was free.
            if *self.subscription.paused.borrow() {
                continue;
            }
            // Else what a handler has finished too late would be claimed again.
            if self.runtime.ends.has_late_ones() {
                let tried = self.runtime.ends.late_ones_tried();
                closing.run_until_cancelled(tried).await;
            }
            // A handler that became free at the same moment would be seen first.
            if closing.is_cancelled() {
                break;
            }
            self.subscription.overdue.forget_late_ones();
            registration.keep_house();
            wakes.mark_seen();
            let room = free.num_permits() * options.max_batch;
            // The store's clock for the claim starts later than this one.
            let lease_end = Instant::now() + options.visibility_timeout;
            // A claim is broken off by the end of closing alone: what it has taken must be handled or handed
            // back.
            let wait = match engine.claim(consumer, room, options.claim_options()).await {
                Ok(Claimed { messages, next_due }) => {
                    claiming.worked();
                    let may_have_more = messages.len() >= room;
                    let messages = self.without_handlers(messages).await;
                    let margin = margin(options.visibility_timeout);
                    if !messages.is_empty() && Instant::now() + margin >= lease_end {
                        self.release_late(&messages, &mut slowness).await;
                        drop(free);
                        self.pause(&mut pause).await;
                        continue;
                    }
                    if slowness.worked() {
                        tracing::info!(
                            stream = %key.stream, group = %key.group,
                            "claims take less time than they last again"
                        );
                    }
                    pause = FIRST_PAUSE;
                    self.start_all(messages, free, lease_end).await;
                    if may_have_more {
                        continue;
                    }
                    next_due
                }
                Err(error @ (Error::Closed | Error::UnknownGroup)) => {
                    tracing::error!(
                        stream = %key.stream, group = %key.group,
                        error = &error as &dyn std::error::Error, "a consumer ends because it cannot continue"
                    );
                    return EndReason::Failed(error);
                }
                Err(error) => {
                    claiming.failed(&error);
                    drop(free);
                    self.pause(&mut pause).await;
                    continue;
                }
            };
            tokio::select! {
                () = closing.cancelled() => break,
                () = wakes.woken() => {}
                () = registration.polled() => {}
                () = after(wait) => {}
            }
        }
        EndReason::Closed
    }

    /// Waits while the store fails, and doubles the next pause.
    async fn pause(&self, pause: &mut Duration) {
        let waiting = tokio::time::sleep(jittered(*pause));
        self.subscription.closing.run_until_cancelled(waiting).await;
        *pause = (*pause * 2).min(LAST_PAUSE);
    }

    /// The messages that no handler of this consumer has. One that blocks its thread may have let its claim
    /// expire: its message is not handled again beside it, and is not dead-lettered. If it has ended
    /// meanwhile, what it decided holds.
    async fn without_handlers(&self, mut messages: Vec<ClaimedMessage>) -> Vec<ClaimedMessage> {
        // Only what comes again can have a handler.
        let again = messages.iter().filter(|it| it.message.attempt > 1);
        let again: Vec<Receipt> = again.map(|it| it.receipt).collect();
        if again.is_empty() {
            return messages;
        }
        let mut handled = self.subscription.overdue.renew(&again);
        let mut ends = Vec::new();
        messages.retain(|it| match handled.remove(&it.message.id) {
            None => true,
            Some(Reclaimed::Running) => false,
            Some(Reclaimed::Ended(end)) => {
                ends.push(end);
                false
            }
        });
        self.runtime.ends.send(ends).await;
        messages
    }

    /// Hands back what was claimed too slowly.
    async fn release_late(&self, messages: &[ClaimedMessage], slowness: &mut Trouble) {
        if slowness.failed() {
            let GroupKey { stream, group } = self.subscription.group();
            let visibility_timeout = self.subscription.options.visibility_timeout;
            tracing::warn!(
                %stream, %group, messages = messages.len(), ?visibility_timeout,
                "claims take longer than they last, releasing their messages"
            );
        }
        self.release_all(messages).await;
    }

    /// Hands back claims that no handler has begun.
    async fn release_all(&self, messages: &[ClaimedMessage]) {
        let ends = messages.iter().map(|d| attempt::released(d.receipt));
        self.runtime.ends.send(ends.collect()).await;
    }

    /// Gives the claimed messages to free handlers, as many to each as it takes at once.
    async fn start_all(
        &self,
        messages: Vec<ClaimedMessage>,
        mut free: OwnedSemaphorePermit,
        lease_end: Instant,
    ) {
        let options = &self.subscription.options;
        let max_attempts = options.max_attempts();
        let is_poison =
            |it: &ClaimedMessage| max_attempts.is_some_and(|max| it.message.attempt > max);
        let (poison, mut healthy): (Vec<_>, Vec<_>) = messages.into_iter().partition(is_poison);
        while !healthy.is_empty() {
            let rest = healthy.split_off(options.max_batch.min(healthy.len()));
            if let Some(permit) = free.split(1) {
                self.start(healthy, permit, lease_end);
            } else {
                // The engine gave more than it was asked for.
                self.release_all(&healthy).await;
            }
            healthy = rest;
        }
        let ends = poison
            .iter()
            .map(|d| attempt::poisoned(&self.subscription, d));
        self.runtime.ends.send(ends.collect()).await;
    }

    fn start(
        &self,
        messages: Vec<ClaimedMessage>,
        permit: OwnedSemaphorePermit,
        lease_end: Instant,
    ) {
        let runtime = Arc::clone(&self.runtime);
        self.running.spawn(async move {
            let HandlerRuntime {
                subscription,
                handler,
                abort,
                ends,
            } = &*runtime;
            let ended = attempt::run(subscription, handler, messages, lease_end, abort).await;
            if ended.is_late {
                let late: Vec<_> = ended.ends.iter().map(Settling::id).collect();
                ends.send_late(ended.ends).await;
                subscription.overdue.late_ones_tried(&late);
            } else {
                ends.send(ended.ends).await;
            }
            drop(permit);
        });
    }
}

/// Waits until a handler is free, then takes all that are, up to a number. `None` does not happen,
/// because the semaphore is never closed.
async fn free(permits: &Arc<Semaphore>, most: usize) -> Option<OwnedSemaphorePermit> {
    let mut free = Arc::clone(permits).acquire_owned().await.ok()?;
    if most > 1 {
        // Handlers that end together become free together: one claim is for all of them.
        tokio::task::yield_now().await;
    }
    let more = permits.available_permits().min(most - 1);
    // No other task takes permits, so what was available a moment ago still is.
    if let Ok(more) = u32::try_from(more)
        && let Ok(more) = Arc::clone(permits).try_acquire_many_owned(more)
    {
        free.merge(more);
    }
    Some(free)
}

/// Spreads the claims of many consumers that met the same failure.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.875 + fastrand::f64() / 4.0)
}
