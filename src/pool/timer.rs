use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use super::{Phase, Pool};

/// The timer: makes lanes ready whose time has come, so that no worker and no delivery needs a
/// timer of its own.
pub(super) async fn run(pool: Arc<Pool>) {
    loop {
        let step = pool.change(|state| {
            state.scheduler.wake(Instant::now());
            let is_idle = state.scheduler.queued() == 0 && state.scheduler.in_flight() == 0;
            if state.phase == Phase::Stopping && is_idle {
                return None;
            }
            state.timer = state.scheduler.next_timer();
            Some(state.timer)
        });
        let Some(wake_at) = step else {
            return;
        };
        let due = async {
            match wake_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = pool.timer.notified() => {}
        }
    }
}
