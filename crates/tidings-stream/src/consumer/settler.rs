//! Recording how claims ended, many at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{CloseReport, Subscription};
use crate::Error;
use crate::engine::{Outcome, Settlement};

/// Most handlers whose ends are recorded in one call to the store.
const MAX_BATCH: usize = 512;

/// Waits between attempts to record, while the store fails: it doubles from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// The end of one claim, on its way to the store.
pub(super) struct Settling {
    pub(super) settlement: Settlement,
    pub(super) kind: Kind,
}

/// How the end counts in a [`CloseReport`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Finished,
    Released,
    Abandoned,
}

/// Records ends until everyone who could send one has gone, or `stop` says that the rest does not
/// count. It keeps trying while the store fails, until `give_up`.
///
/// Whatever queues up while the store commits one batch makes the next: no delay is added.
pub(super) async fn run(
    subscription: Arc<Subscription>,
    mut queue: mpsc::Receiver<Vec<Settling>>,
    stop: CancellationToken,
    give_up: CancellationToken,
) -> CloseReport {
    let mut report = CloseReport::default();
    let mut batch = Vec::with_capacity(MAX_BATCH);
    loop {
        let received = tokio::select! {
            biased;
            received = queue.recv_many(&mut batch, MAX_BATCH) => received,
            () = stop.cancelled() => {
                queue.close();
                queue.recv_many(&mut batch, MAX_BATCH).await
            }
        };
        if received == 0 {
            return report;
        }
        let (settlements, kinds): (Vec<_>, Vec<_>) = batch
            .drain(..)
            .flatten()
            .map(|settling| (settling.settlement, settling.kind))
            .unzip();
        let settlements = Arc::from(settlements);
        let recorded = record(&subscription, &settlements, &give_up).await;
        if let Some(obeyed) = &recorded {
            count(&subscription, &settlements, obeyed);
        }
        if subscription.closing.is_cancelled() {
            for kind in kinds {
                match kind {
                    _ if recorded.is_none() => report.abandoned += 1,
                    Kind::Finished => report.finished += 1,
                    Kind::Released => report.released += 1,
                    Kind::Abandoned => report.abandoned += 1,
                }
            }
        }
    }
}

/// Answers which receipts were obeyed; `None` when the store took nothing.
async fn record(
    subscription: &Subscription,
    settlements: &Arc<[Settlement]>,
    give_up: &CancellationToken,
) -> Option<Vec<bool>> {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match subscription
            .engine
            .settle(subscription.group(), Arc::clone(settlements))
            .await
        {
            Ok(obeyed) => return Some(obeyed),
            Err(error) => error,
        };
        tracing::error!(
            stream = %subscription.group().stream, group = %subscription.group().group,
            messages = settlements.len(), error = &error as &dyn std::error::Error,
            "the ends of messages were not recorded"
        );
        if matches!(error, Error::Closed | Error::UnknownGroup) {
            return None;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = give_up.cancelled() => return None,
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

fn count(subscription: &Subscription, settlements: &[Settlement], obeyed: &[bool]) {
    let counters = &subscription.counters;
    for (settlement, obeyed) in settlements.iter().zip(obeyed) {
        let counter = match settlement.outcome {
            _ if !obeyed => {
                tracing::debug!(
                    stream = %subscription.group().stream, group = %subscription.group().group,
                    id = %settlement.receipt.id, "an end came too late"
                );
                &counters.stale
            }
            Outcome::Acknowledged => &counters.acknowledged,
            Outcome::Retry { .. } => &counters.retried,
            Outcome::Released => &counters.released,
            Outcome::Dead { .. } => &counters.dead_lettered,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
