use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use super::{Phase, Pool};

/// The clock: wakes the lanes whose time has come, so that no worker and no delivery needs a timer
/// of its own.
pub(super) async fn keep_time(pool: Arc<Pool>) {
    loop {
        let wake_at = {
            let mut state = pool.lock();
            state.scheduler.wake(Instant::now());
            let scheduler = &state.scheduler;
            let is_idle = scheduler.queued() == 0 && scheduler.in_flight() == 0;
            if state.phase == Phase::Stopping && is_idle {
                return;
            }
            let wake_at = scheduler.next_timer();
            if scheduler.has_work() {
                pool.changed.notify_one();
            }
            wake_at
        };
        let due = async {
            match wake_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = pool.clock.notified() => {}
            () = pool.abort.cancelled() => return,
        }
    }
}
