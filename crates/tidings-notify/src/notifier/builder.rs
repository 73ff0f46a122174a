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

/// Shortest and longest time between two sweeps. A longer one would overflow the clock.
const POLL_INTERVALS: [Duration; 2] = [
    Duration::from_millis(10),
    Duration::from_secs(365 * 24 * 60 * 60),
];

/// What happens to a notification for a user who is not online according to
/// [presence](NotifierBuilder::with_presence).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OfflinePolicy {
    /// It is stored, and waits for the user.
    #[default]
    Store,
    /// It is not stored. Has no effect without presence.
    Skip,
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
    /// when its wake-up is lost. The default is two seconds, the least ten milliseconds, the
    /// most a year.
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        let [shortest, longest] = POLL_INTERVALS;
        self.poll_interval = interval.clamp(shortest, longest);
        self
    }

    /// Sets how many recent events, and changes of what is read, are kept in memory for each user
    /// with open streams; at least one. The default is 64. A stream that lags further reads the
    /// store.
    pub fn with_buffer_size(mut self, events: usize) -> Self {
        self.buffer_size = events.max(1);
        self
    }

    /// Sets the tracker that knows which users are online, and where. It serves [`with_router`](Self::with_router)
    /// and [`with_offline_policy`](Self::with_offline_policy), and does nothing without them.
    pub fn with_presence(mut self, presence: Arc<dyn Presence>) -> Self {
        self.presence = Some(presence);
        self
    }

    /// Sets how events reach the other instances that presence names. Without presence it is not
    /// used.
    pub fn with_router(mut self, router: Arc<dyn Router>) -> Self {
        self.router = Some(router);
        self
    }

    /// Sets the name of this instance, as it stands in the
    /// [`RoutingInfo`](crate::RoutingInfo) of connections to it, so that it does not route to
    /// itself. The default is the empty name.
    pub fn with_instance_id(mut self, instance_id: impl Into<String>) -> Self {
        self.instance_id = instance_id.into();
        self
    }

    /// Sets what happens to notifications for users who are offline. The default is to store them.
    pub fn with_offline_policy(mut self, policy: OfflinePolicy) -> Self {
        self.offline_policy = policy;
        self
    }

    /// Starts the background tasks and returns the notifier.
    ///
    /// # Panics
    ///
    /// When called outside a tokio runtime with its timer enabled.
    pub fn build(self) -> Notifier {
        let instance = Arc::new(Instance {
            store: self.store,
            hub: Hub::new(self.buffer_size),
            delivered: Delivered::default(),
            hints: Hints::default(),
            stats: Stats::default(),
            page_size: self.buffer_size,
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
                closed: CancellationToken::new(),
            }),
        }
    }
}
