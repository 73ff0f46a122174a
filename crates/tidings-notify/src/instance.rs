//! What the notifier, its streams and its background tasks share.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Store;
use crate::delivered::Delivered;
use crate::hints::Hints;
use crate::hub::Hub;
use crate::telemetry::Stats;

/// One notifier's store, streams and counters.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hub: Hub,
    pub(crate) delivered: Delivered,
    pub(crate) hints: Hints,
    pub(crate) stats: Stats,
    /// Fewest events that a stream asks the store for at a time.
    pub(crate) page_size: usize,
    /// The notifier was closed, or its runtime has ended.
    pub(crate) closed: CancellationToken,
}

impl Instance {
    /// Refuses new pushes and streams, and ends the open streams once they have given what is known.
    pub(crate) fn close(&self) {
        self.closed.cancel();
        self.hub.close();
    }
}

/// Time until a task that panicked is started again.
pub(crate) const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// The background tasks. They end when the notifier and all its streams are gone.
#[derive(Debug)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn_boxed(work.boxed());
    }

    fn spawn_boxed(&self, work: BoxFuture<'static, ()>) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            // Whether it was stopped or ended by itself makes no difference.
            let _ended = stop.run_until_cancelled(work).await;
        });
    }

    /// As [`spawn`](Self::spawn), for work that calls the store: if that panics, the work is begun anew. If the
    /// runtime ends, so does the notifier, whose streams would miss events without a word.
    pub(crate) fn spawn_again<F: Future<Output = ()> + Send + 'static>(
        &self,
        instance: &Arc<Instance>,
        work: impl Fn(Arc<Instance>) -> F + Send + Sync + 'static,
    ) {
        let task = NeededTask {
            instance: instance.clone(),
            has_ended: false,
        };
        self.spawn(async move {
            let run = || AssertUnwindSafe(work(task.instance.clone())).catch_unwind();
            while run().await.is_err() {
                tracing::error!("a background task of a notifier panicked, and is started again");
                tokio::time::sleep(RESTART_PAUSE).await;
            }
            task.end();
        });
    }

    /// Stops the tasks and waits for their end.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// A task that closes the notifier if it is dropped before its end.
struct NeededTask {
    instance: Arc<Instance>,
    has_ended: bool,
}

impl NeededTask {
    fn end(mut self) {
        self.has_ended = true;
    }
}

impl Drop for NeededTask {
    fn drop(&mut self) {
        if !self.has_ended {
            self.instance.close();
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
