//! Writing to the store who is here, and that this instance is alive.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tidings_reconnect::{Backoff, Trouble};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::Here;
use super::roster::{Batch, Roster};
use crate::RoutingInfo;
use crate::presence::{
    Heartbeat, Lease, LeaseId, MAX_UPDATE, Presence, PresenceError, Standing, Update,
};

/// The only task that writes this instance's lease to the store, so that one call follows the other.
pub(super) struct Keeper {
    presence: Arc<dyn Presence>,
    here: Arc<Here>,
    routing: RoutingInfo,
    ttl: Duration,
    lease: Option<Held>,
    /// Leases before, of which the store may still have something.
    old: VecDeque<LeaseId>,
    /// The lease has been ended, and the roster has the outcome.
    has_ended: bool,
    trouble: Trouble,
    backoff: Backoff,
    /// The store has failed, and is not asked again before this time.
    pause: Option<Instant>,
}

/// Most leases that are to be ended. The store lets the others end.
const MAX_OLD: usize = 16;

/// Why the store is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// There is something to write.
    Change,
    /// It has failed. It is asked also when there is nothing to write.
    Retry,
    /// It is time to renew the lease.
    Beat,
}

/// A lease that was written to the store.
struct Held {
    lease: Lease,
    /// The version of the last update that succeeded, and of the last one that was tried.
    confirmed: u64,
    tried: u64,
}

impl Keeper {
    pub(super) fn new(
        presence: Arc<dyn Presence>,
        here: Arc<Here>,
        routing: RoutingInfo,
        ttl: Duration,
    ) -> Self {
        Self {
            presence,
            here,
            routing,
            ttl,
            lease: None,
            old: VecDeque::new(),
            has_ended: false,
            trouble: Trouble::new(),
            backoff: Backoff::new(fastrand::Rng::new()),
            pause: None,
        }
    }

    /// Keeps the lease until the tracker is closed, and ends it then.
    pub(super) async fn run(mut self) {
        let here = Arc::clone(&self.here);
        let interval = self.ttl / 3;
        let mut beats = interval_at(Instant::now() + interval, interval);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let pause = self.pause;
            let occasion = tokio::select! {
                biased;
                () = here.closing.cancelled() => break,
                _ = beats.tick() => Occasion::Beat,
                () = here.wake.notified(), if pause.is_none() => Occasion::Change,
                () = until(pause), if pause.is_some() => Occasion::Retry,
            };
            let kept = tokio::select! {
                biased;
                () = here.closing.cancelled() => break,
                kept = self.keep(occasion) => kept,
            };
            self.note(kept);
        }
        let farewell = self.end().await;
        here.with(|roster| roster.close(farewell));
        self.has_ended = true;
    }

    /// Brings the store up to date, and renews the lease if it is time.
    async fn keep(&mut self, occasion: Occasion) -> Result<(), PresenceError> {
        // What was lost is written again at once. If that is lost as well, it waits for the next heartbeat.
        for _ in 0..2 {
            if self.renew(occasion).await? == Standing::Kept {
                while let Some(&old) = self.old.front() {
                    self.presence.end(old).await?;
                    self.old.pop_front();
                }
                break;
            }
            tracing::debug!("presence has lost this instance, which writes everything again");
            if self.old.len() == MAX_OLD {
                self.old.pop_front();
            }
            self.old.extend(self.lease.take().map(|held| held.lease.id));
            self.here.with(Roster::forget);
        }
        Ok(())
    }

    /// Writes what there is to write, which renews the lease; without it, a heartbeat does so if it is time.
    async fn renew(&mut self, occasion: Occasion) -> Result<Standing, PresenceError> {
        loop {
            match self.write().await {
                Ok(None) => {}
                Ok(Some(standing)) => return Ok(standing),
                Err(error) => {
                    if occasion == Occasion::Beat {
                        self.beat_without_write().await;
                    }
                    return Err(error);
                }
            }
            let Some(held) = self.lease.as_ref() else {
                return Ok(Standing::Kept);
            };
            if occasion == Occasion::Change {
                return Ok(Standing::Kept);
            }
            let Some(written) = self.here.with(|roster| roster.written()) else {
                return Ok(Standing::Kept);
            };
            // Otherwise there is something to write by now.
            if let Some(users) = written {
                return self.beat(held, users).await;
            }
        }
    }

    /// Renews the lease as it was written last, after a write has failed. A server without room refuses the
    /// write and has room for this: those whom it has stay online.
    async fn beat_without_write(&self) {
        if let Some(held) = self.lease.as_ref().filter(|held| held.confirmed > 0)
            && let Some(users) = self.here.with(|roster| roster.stored())
        {
            // The write that has failed may have taken effect, and then the lease is not as expected. Whether
            // it is lost, the next write finds out.
            let _outcome = self.beat(held, users).await;
        }
    }

    async fn beat(&self, held: &Held, users: usize) -> Result<Standing, PresenceError> {
        let expected = Heartbeat {
            version: held.confirmed,
            users: users as u64,
        };
        self.presence.beat(&held.lease, &expected).await
    }

    /// Writes to the store what it does not have yet; returns `None` if there was nothing.
    async fn write(&mut self) -> Result<Option<Standing>, PresenceError> {
        let mut written = None;
        loop {
            let batch = self.here.with(|roster| roster.take(MAX_UPDATE));
            let Some(batch) = batch.filter(|batch| !batch.is_empty()) else {
                return Ok(written);
            };
            // It is dropped only by a tracker that is closed, and whose roster is given up.
            let standing = self.update(&batch).await;
            self.here.with(|roster| roster.record(batch, &standing));
            written = Some(standing?);
            if written == Some(Standing::Lost) {
                return Ok(written);
            }
        }
    }

    async fn update(&mut self, batch: &Batch) -> Result<Standing, PresenceError> {
        let held = match &mut self.lease {
            Some(held) => held,
            none => none.insert(Held {
                lease: Lease {
                    id: LeaseId::random()?,
                    routing: self.routing.clone(),
                    ttl: self.ttl,
                },
                confirmed: 0,
                tried: 0,
            }),
        };
        held.tried += 1;
        let update = Update {
            confirmed: held.confirmed,
            version: held.tried,
            came: batch.users(true),
            left: batch.users(false),
        };
        let standing = self.presence.update(&held.lease, &update).await?;
        if standing == Standing::Kept {
            held.confirmed = held.tried;
        }
        Ok(standing)
    }

    /// Notes how it went, and when to try again.
    fn note(&mut self, kept: Result<(), PresenceError>) {
        match kept {
            Ok(()) => {
                self.pause = None;
                self.backoff.reset();
                if self.trouble.worked() {
                    tracing::info!("who is online can be stored again");
                }
            }
            Err(error) => {
                self.pause = self.backoff.next().map(|pause| Instant::now() + pause);
                if self.trouble.failed() {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "failed to store who is online, trying again"
                    );
                }
            }
        }
    }

    async fn end(&self) -> Result<(), PresenceError> {
        let lease = self.lease.as_ref().map(|held| held.lease.id);
        for lease in lease.into_iter().chain(self.old.iter().copied()) {
            self.presence.end(lease).await?;
        }
        Ok(())
    }
}

impl Drop for Keeper {
    /// Without it, as after a panic of the store, nothing would be written any more: the tracker is closed.
    fn drop(&mut self) {
        self.here.closing.cancel();
        if !self.has_ended {
            let roster = self.here.lock().take();
            // Those who wait get an error once the lock is free.
            drop(roster);
        }
    }
}

async fn until(pause: Option<Instant>) {
    if let Some(pause) = pause {
        sleep_until(pause).await;
    }
}
