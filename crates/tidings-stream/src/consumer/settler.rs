//! Recording how claims ended, many at a time.
//!
//! A dead letter needs room in the store and an acknowledgement makes some, so one that cannot be
//! written must not hold up the other. Everything but dead letters is recorded first. Dead letters
//! that fail wait in a backlog and are tried again one by one. Their claims are extended meanwhile: what a
//! handler has decided is not to be handled again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::outage::Part;
use super::{CloseReport, Subscription, after};
use crate::engine::{Outcome, Settlement};
use crate::{Error, MessageId, Result, telemetry};

/// Most settlements of one call to the store, so that no call holds up the store for long.
const MAX_BATCH: usize = 1000;

/// Most dead letters of one call: each one is a message that the store copies.
const MAX_LETTERS: usize = 100;

/// Handlers whose ends may wait to be recorded, and messages of handlers that have several. A handler
/// whose end finds no room keeps its permit, so that a slow store slows the claiming down.
const MAX_WAITING: usize = 4096;

/// Dead letters that wait to be tried again. Beyond that the oldest is given up: its claim runs out,
/// and the message is delivered again.
const MAX_BACKLOG: usize = 1000;

/// Pauses between attempts to record while the store fails: they double from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// The end of one claim, on its way to the store.
#[derive(Debug, Clone)]
pub(super) struct Settling {
    pub(super) settlement: Settlement,
    pub(super) kind: Kind,
    /// Whether a transaction of the handler's may have acknowledged the message: it has, if the claim is
    /// gone.
    pub(super) by_transaction: bool,
}

impl Settling {
    /// The message.
    pub(super) fn id(&self) -> MessageId {
        self.settlement.receipt.id
    }

    fn is_letter(&self) -> bool {
        matches!(self.settlement.outcome, Outcome::Dead { .. })
    }
}

/// How the end counts in a [`CloseReport`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Finished,
    Released,
    Abandoned,
}

/// Where handlers leave the ends of their claims. Clones share the queue.
#[derive(Clone)]
pub(super) struct Ends {
    queue: mpsc::Sender<Batch>,
    room: Arc<Semaphore>,
    /// How many batches came after their claims had expired and are still to be recorded.
    late: watch::Sender<usize>,
    /// How many ends came when nothing recorded them any more.
    unsent: Arc<AtomicU64>,
}

/// The ends that one handler has left.
pub(super) struct Batch {
    ends: Vec<Settling>,
    /// Of several messages; one finds its room in the queue.
    room: Option<OwnedSemaphorePermit>,
    /// Completes when the store was asked once to record them.
    tried: Option<oneshot::Sender<()>>,
}

/// Makes the queue of one subscription.
pub(super) fn queue() -> (Ends, mpsc::Receiver<Batch>) {
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    let ends = Ends {
        queue: sender,
        room: Arc::new(Semaphore::new(MAX_WAITING)),
        late: watch::Sender::new(0),
        unsent: Arc::default(),
    };
    (ends, receiver)
}

impl Ends {
    /// Leaves ends to be recorded.
    pub(super) async fn send(&self, ends: Vec<Settling>) {
        self.enqueue(ends, None).await;
    }

    /// Leaves ends of claims that have expired, and waits until the store was asked to record them.
    /// A message that is claimed again before that would be handled twice.
    pub(super) async fn send_late(&self, ends: Vec<Settling>) {
        let (tried, was_tried) = oneshot::channel();
        self.late.send_modify(|late| *late += 1);
        self.enqueue(ends, Some(tried)).await;
        // An error means that the settler has gone, which has counted the ends as abandoned.
        drop(was_tried.await);
        self.late.send_modify(|late| *late -= 1);
    }

    /// Whether the store is still to be asked to record late ends.
    pub(super) fn has_late_ones(&self) -> bool {
        *self.late.borrow() > 0
    }

    /// Waits until the store was asked to record all late ends.
    pub(super) async fn late_ones_tried(&self) {
        // The sender is here, so that waiting cannot fail.
        drop(self.late.subscribe().wait_for(|late| *late == 0).await);
    }

    /// How many ends came too late to be recorded, which grows.
    pub(super) fn unsent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.unsent)
    }

    async fn enqueue(&self, ends: Vec<Settling>, tried: Option<oneshot::Sender<()>>) {
        if ends.is_empty() {
            return;
        }
        let mut room = None;
        if ends.len() > 1 {
            let messages = u32::try_from(ends.len().min(MAX_WAITING)).unwrap_or(u32::MAX);
            let acquired = Arc::clone(&self.room).acquire_many_owned(messages).await;
            // The semaphore is never closed.
            room = acquired.ok();
        }
        let batch = Batch { ends, room, tried };
        if let Err(unsent) = self.queue.send(batch).await {
            self.unsent
                .fetch_add(unsent.0.ends.len() as u64, Ordering::Relaxed);
            // Their claims run out.
            for Settling { settlement, .. } in unsent.0.ends {
                let id = settlement.receipt.id;
                tracing::warn!(%id, "a handler returned after its consumer was closed; the message is delivered again when its claim expires");
            }
        }
    }
}

/// Records ends until every handle to the queue is gone, or `stop` says that the rest does not
/// count. It keeps trying while the store fails, until `give_up`.
///
/// What queues up while the store commits one batch makes the next one: no delay is added.
pub(super) async fn run(
    subscription: Arc<Subscription>,
    mut queue: mpsc::Receiver<Batch>,
    stop: CancellationToken,
    give_up: CancellationToken,
) -> CloseReport {
    let mut settler = Settler {
        subscription: &subscription,
        give_up: &give_up,
        report: CloseReport::default(),
        backlog: VecDeque::new(),
        pause: FIRST_PAUSE,
        next_try: None,
        extended_at: Instant::now(),
        ends: subscription.outages.part("recording how messages ended"),
        letters: subscription.outages.part("recording dead letters"),
    };
    let mut batches = Vec::new();
    loop {
        let wait = settler.next_try.map(|time| time - Instant::now());
        if wait == Some(Duration::ZERO) {
            settler.try_backlog().await;
            continue;
        }
        let received = tokio::select! {
            biased;
            received = queue.recv_many(&mut batches, MAX_BATCH) => received,
            () = stop.cancelled() => {
                queue.close();
                queue.recv_many(&mut batches, MAX_BATCH).await
            }
            () = after(wait) => continue,
        };
        if received == 0 {
            return settler.finish().await;
        }
        settler.record(batches.drain(..)).await;
    }
}

struct Settler<'a> {
    subscription: &'a Subscription,
    give_up: &'a CancellationToken,
    report: CloseReport,
    /// Dead letters that the store did not take yet.
    backlog: VecDeque<Settling>,
    pause: Duration,
    /// When the backlog is tried again; `None` if there is none.
    next_try: Option<Instant>,
    /// When the claims of the whole backlog were extended, or were all young enough.
    extended_at: Instant,
    /// Recording anything but dead letters, and dead letters.
    ends: Part,
    letters: Part,
}

impl Settler<'_> {
    async fn record(&mut self, batches: impl Iterator<Item = Batch>) {
        let (mut letters, mut others, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for Batch { ends, room, tried } in batches {
            if ends.iter().any(Settling::is_letter) {
                let (dying, living): (Vec<_>, Vec<_>) =
                    ends.into_iter().partition(Settling::is_letter);
                letters.extend(dying);
                others.extend(living);
            } else {
                others.extend(ends);
            }
            waiting.push((room, tried));
        }
        for chunk in chunks(others, MAX_BATCH) {
            let recorded = self.record_until_given_up(&chunk).await;
            self.count(&chunk, recorded.as_deref());
        }
        for chunk in chunks(letters, MAX_LETTERS) {
            match self.settle(&chunk).await {
                Ok(obeyed) => self.count(&chunk, Some(&obeyed)),
                Err(error) if is_final(&error) => self.count(&chunk, None),
                Err(_) => self.postpone(chunk).await,
            }
        }
        for (room, tried) in waiting {
            drop(room);
            // An error means that the handler's task was aborted.
            if let Some(Err(())) = tried.map(|tried| tried.send(())) {
                tracing::debug!("the handler of a late end has gone");
            }
        }
    }

    /// Returns which receipts were obeyed; `None` if the store took nothing.
    async fn record_until_given_up(&mut self, chunk: &[Settling]) -> Option<Vec<bool>> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.settle(chunk).await {
                Ok(obeyed) => return Some(obeyed),
                Err(error) if is_final(&error) => return None,
                Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.give_up.cancelled() => return None,
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn settle(&mut self, chunk: &[Settling]) -> Result<Vec<bool>> {
        let group = self.subscription.group();
        let settlements = chunk.iter().map(|end| end.settlement.clone()).collect();
        let settling = self.subscription.engine.settle(group, settlements);
        // Once it gives up, it does not wait for a store that does not reply, either.
        let Some(settled) = self.give_up.run_until_cancelled(settling).await else {
            return Err(Error::Closed);
        };
        // A chunk has dead letters or others.
        let part = if chunk.first().is_some_and(Settling::is_letter) {
            &mut self.letters
        } else {
            &mut self.ends
        };
        match &settled {
            Ok(_) => part.worked(),
            Err(error) if is_final(error) => {}
            Err(error) => part.failed(error),
        }
        settled
    }

    async fn postpone(&mut self, letters: Vec<Settling>) {
        if self.backlog.is_empty() {
            self.extended_at = Instant::now();
        }
        self.extend(&letters).await;
        self.backlog.extend(letters);
        while self.backlog.len() > MAX_BACKLOG {
            if let Some(oldest) = self.backlog.pop_front() {
                self.count(&[oldest], None);
            }
        }
        if self.next_try.is_none() {
            self.pause = FIRST_PAUSE;
            self.next_try = Some(Instant::now() + self.pause);
        }
    }

    /// Lets the claims of letters that wait last longer.
    async fn extend(&self, letters: impl IntoIterator<Item = &Settling>) {
        let Subscription {
            engine, options, ..
        } = self.subscription;
        let receipts = letters.into_iter().map(|it| it.settlement.receipt);
        let receipts = receipts.collect();
        let extending = engine.extend(
            self.subscription.group(),
            receipts,
            options.visibility_timeout,
        );
        // What other claims have taken is refused when it is tried again.
        match self.give_up.run_until_cancelled(extending).await {
            Some(Ok(_)) => self.subscription.extending.lock().worked(),
            Some(Err(error)) if !is_final(&error) => {
                self.subscription.extending.lock().failed(&error);
            }
            _ => {}
        }
    }

    /// The longest pause between attempts on the backlog, in which no claim expires.
    fn last_pause(&self) -> Duration {
        LAST_PAUSE.min(self.subscription.options.visibility_timeout / 3)
    }

    /// Tries the backlog one by one, up to the first that fails, which goes to the end.
    async fn try_backlog(&mut self) {
        let now = Instant::now();
        if now - self.extended_at >= self.subscription.options.visibility_timeout / 3 {
            self.extended_at = now;
            self.extend(&self.backlog).await;
        }
        while let Some(letter) = self.backlog.pop_front() {
            let letter = [letter];
            match self.settle(&letter).await {
                Ok(obeyed) => {
                    self.pause = FIRST_PAUSE;
                    self.count(&letter, Some(&obeyed));
                }
                Err(error) if is_final(&error) => self.count(&letter, None),
                Err(_) => {
                    self.backlog.extend(letter);
                    self.pause = (self.pause * 2).min(self.last_pause());
                    self.next_try = Some(Instant::now() + self.pause);
                    return;
                }
            }
        }
        self.next_try = None;
    }

    /// Tries what is left of the backlog once more.
    async fn finish(mut self) -> CloseReport {
        for _ in 0..self.backlog.len() {
            if self.give_up.is_cancelled() {
                break;
            }
            self.try_backlog().await;
        }
        let left: Vec<Settling> = self.backlog.drain(..).collect();
        self.count(&left, None);
        self.report
    }

    /// Counts ends whose receipts were obeyed or not; `None` if the store took nothing.
    fn count(&mut self, chunk: &[Settling], obeyed: Option<&[bool]>) {
        let Subscription {
            engine, options, ..
        } = self.subscription;
        let group = self.subscription.group();
        let by_transaction = || chunk.iter().any(|end| end.by_transaction);
        if options.max_in_flight.is_some() || options.in_key_order && by_transaction() {
            // What these have held back can be claimed now, and no engine says so.
            engine.wakes().wake(&group.stream);
        }
        let mut counted = [0; 5];
        for (end, obeyed) in chunk.iter().zip(obeyed.into_iter().flatten()) {
            let outcome = match end.settlement.outcome {
                _ if !obeyed && end.by_transaction => 0,
                _ if !obeyed => {
                    let id = end.settlement.receipt.id;
                    tracing::debug!(
                        stream = %group.stream, group = %group.group, %id,
                        "another claim had taken the message before this one ended, or it was removed"
                    );
                    4
                }
                Outcome::Acknowledged => 0,
                Outcome::Retry { .. } => 1,
                Outcome::Released => 2,
                Outcome::Dead { .. } => 3,
            };
            counted[outcome] += 1;
        }
        {
            let stats = &mut *self.subscription.stats.lock();
            stats.acknowledged += counted[0];
            stats.retried += counted[1];
            stats.released += counted[2];
            stats.dead_lettered += counted[3];
            stats.stale += counted[4];
        }
        // Without the lock: a recorder of metrics may look at the consumer.
        let outcomes = [
            telemetry::ACKNOWLEDGED,
            telemetry::RETRIED,
            telemetry::RELEASED,
            telemetry::DEAD_LETTERED,
            telemetry::STALE,
        ];
        for (outcome, messages) in outcomes.into_iter().zip(counted) {
            if messages > 0 {
                self.subscription.telemetry.settled(outcome, messages);
            }
        }
        if self.subscription.closing.is_cancelled() {
            for end in chunk {
                match end.kind {
                    _ if obeyed.is_none() => self.report.abandoned += 1,
                    Kind::Finished => self.report.finished += 1,
                    Kind::Released => self.report.released += 1,
                    Kind::Abandoned => self.report.abandoned += 1,
                }
            }
        }
    }
}

/// Whether no other attempt can succeed.
fn is_final(error: &Error) -> bool {
    matches!(error, Error::Closed | Error::UnknownGroup)
}

fn chunks(mut ends: Vec<Settling>, size: usize) -> impl Iterator<Item = Vec<Settling>> {
    std::iter::from_fn(move || {
        let rest = ends.split_off(size.min(ends.len()));
        let chunk = std::mem::replace(&mut ends, rest);
        (!chunk.is_empty()).then_some(chunk)
    })
}
