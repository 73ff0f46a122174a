//! Forgetting what is older than the retention, a little at a time.

use std::time::Duration;

use jiff::Timestamp;
use tidings_notify::StoreError;
use tokio::time::MissedTickBehavior;

use crate::app::SharedApp;
use crate::{deliveries, idempotency};

/// How often the server looks for what is too old.
const INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Cleans now and then, until the server stops.
pub(crate) async fn run(app: SharedApp) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = clean(&app).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cleaning failed and is tried again later"
            );
        }
    }
}

async fn clean(app: &SharedApp) -> Result<(), StoreError> {
    let cutoff = Timestamp::now()
        .checked_sub(app.config.retention)
        .unwrap_or(Timestamp::MIN);
    app.notifier.store().cleanup(cutoff).await?;
    // Each step is a short transaction, so that accepting never waits behind a long one.
    while !app.stopping.is_cancelled() {
        let removed = app
            .database
            .write_relaxed(move |tx| {
                let keys = idempotency::clean(tx)?;
                let deliveries = deliveries::clean(tx, cutoff)?;
                Ok::<_, tidings_sqlite::Error>(keys + deliveries)
            })
            .await?;
        if removed == 0 {
            break;
        }
    }
    Ok(())
}
