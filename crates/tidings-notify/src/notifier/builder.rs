use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::routing::{ROUTE_QUEUE, Routes};
use super::{Inner, Notifier, routing, sweep};
use crate::delivered::Delivered;
use crate::hints::{self, HINT_READERS, Hints};
use crate::hub::Hub;
use crate::instance::{Instance, Tasks};
use crate::telemetry::Stats;
use crate::{Presence, Router, Store};

/// Time between two sweeps, unless set.
pub const DEFAULT_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Recent events kept in memory for a user with open streams, unless set.
pub const DEFAULT_BUFFER_SIZE: usize = 64;

/// Below this, a notifier would do little else than sweep; above it, sweeping would repair nothing.
const POLL_INTERVALS: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(24 * 60 * 60);

/// What happens to a notification for a user who is not online according to
/// [presence](NotifierBuilder::presence).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OfflinePolicy {
    /// It is stored, and waits for the user.
    #[default]
    Store,
    /// It is not stored. Has no effect without presence.
    Skip,
}

/// An option of a [`NotifierBuilder`] that is outside its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `{field}` to be {expected}")]
pub struct InvalidOption {
    field: &'static str,
    expected: &'static str,
}

impl InvalidOption {
    /// The option, by the name of the function that sets it.
    pub fn field(&self) -> &'static str {
        self.field
    }
}

/// Builds a [`Notifier`].
#[derive(Debug)]
#[must_use]
pub struct NotifierBuilder {
    store: Arc<dyn Store>,
    poll_interval: Duration,
    buffer_size: usize,
    presence: Option<Arc<dyn Presence>>,
    router: Option<Arc<dyn Router>>,
    instance_id: String,
    offline_policy: OfflinePolicy,
}

impl NotifierBuilder {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            poll_interval: DEFAULT_POLL_INTERVAL,
            buffer_size: DEFAULT_BUFFER_SIZE,
            presence: None,
            router: None,
            instance_id: String::new(),
            offline_policy: OfflinePolicy::default(),
        }
    }

    /// Sets the time between two sweeps: how long an event of another instance may take to be seen
    /// when its wake-up is lost: 10 milliseconds to a day. The default is two seconds.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Sets how many recent events, and changes of what is read, are kept in memory for each user
    /// with open streams; zero means one. The default is 64. A stream that lags further reads the
    /// store.
    pub fn buffer_size(mut self, events: usize) -> Self {
        self.buffer_size = events.max(1);
        self
    }

    /// Sets the presence that knows which users are online, and where. It serves [`router`](Self::router)
    /// and [`offline_policy`](Self::offline_policy), and does nothing without them.
    pub fn presence(mut self, presence: Arc<dyn Presence>) -> Self {
        self.presence = Some(presence);
        self
    }

    /// Sets how events reach the other instances that presence names. Without presence it is not
    /// used.
    pub fn router(mut self, router: Arc<dyn Router>) -> Self {
        self.router = Some(router);
        self
    }

    /// Sets the name of this instance, as it stands in the
    /// [`RoutingInfo`](crate::RoutingInfo) of connections to it, so that it does not route to
    /// itself. The default is the empty name.
    pub fn instance_id(mut self, instance_id: impl Into<String>) -> Self {
        self.instance_id = instance_id.into();
        self
    }

    /// Sets what happens to notifications for users who are offline. The default is to store them.
    pub fn offline_policy(mut self, policy: OfflinePolicy) -> Self {
        self.offline_policy = policy;
        self
    }

    /// Checks the options, starts the background tasks and returns the notifier.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`] for `poll_interval` when out of range.
    ///
    /// # Panics
    ///
    /// When called outside a tokio runtime with its timer enabled.
    pub fn build(self) -> Result<Notifier, InvalidOption> {
        if !POLL_INTERVALS.contains(&self.poll_interval) {
            return Err(InvalidOption {
                field: "poll_interval",
                expected: "10 milliseconds to a day",
            });
        }
        Ok(self.start())
    }

    /// Starts what was checked.
    pub(super) fn start(self) -> Notifier {
        let instance = Arc::new(Instance {
            store: self.store,
            hub: Hub::new(self.buffer_size),
            delivered: Delivered::default(),
            hints: Hints::default(),
            stats: Stats::default(),
            page_size: self.buffer_size,
            closed: CancellationToken::new(),
        });
        let tasks = Tasks::new();
        let poll_interval = self.poll_interval;
        tasks.spawn_again(&instance, move |instance| async move {
            sweep::run(&instance, poll_interval).await;
        });
        if let Some(wakes) = instance.store.wakes() {
            let instance = instance.clone();
            tasks.spawn(async move { hints::listen(&instance, wakes).await });
        }
        for _ in 0..HINT_READERS {
            tasks.spawn_again(&instance, |instance| async move {
                hints::read(&instance).await;
            });
        }
        tasks.spawn_again(&instance, |instance| async move {
            instance.delivered.run(&*instance.store).await;
        });
        let routes = self
            .presence
            .clone()
            .zip(self.router)
            .map(|(presence, router)| {
                let (queue, queued) = mpsc::channel(ROUTE_QUEUE);
                let routes = Routes {
                    presence,
                    router,
                    instance_id: self.instance_id,
                };
                let instance = instance.clone();
                tasks.spawn(async move { routing::run(&instance, routes, queued).await });
                queue
            });
        Notifier {
            inner: Arc::new(Inner {
                instance,
                tasks: Arc::new(tasks),
                routes,
                skip_offline: match self.offline_policy {
                    OfflinePolicy::Store => None,
                    OfflinePolicy::Skip => self.presence,
                },
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;

    #[tokio::test]
    async fn options_outside_their_range_are_refused_by_name() {
        let built = |interval| {
            let builder = NotifierBuilder::new(Arc::new(MemoryStore::new()));
            let built = builder.poll_interval(interval).build();
            built.map(drop).map_err(|refused| refused.field())
        };
        let (shortest, longest) = (POLL_INTERVALS.start(), POLL_INTERVALS.end());
        let nanosecond = Duration::from_nanos(1);
        assert_eq!(built(*shortest), Ok(()));
        assert_eq!(built(*longest), Ok(()));
        assert_eq!(
            built(shortest.saturating_sub(nanosecond)),
            Err("poll_interval")
        );
        assert_eq!(built(*longest + nanosecond), Err("poll_interval"));
    }
}
