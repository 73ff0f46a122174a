use std::collections::{BTreeSet, HashMap};
use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tidings_notify::{Event, EventType, RouteError, Router, RoutingInfo};
use tokio::time::{Instant, timeout_at};

use crate::pool::Outcome;
use crate::{DEFAULT_TIMEOUT, DeliveryError, Dispatcher, Endpoint, EndpointId, Message};

/// What takes the place of a longer wait: the clocks of all systems can hold it.
const MAX_LONGEST_WAIT: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Routes each event to every endpoint whose filter accepts it, to all at the same time.
///
/// `route` returns when every endpoint has accepted the event or failed for good, and after the
/// [longest wait](Self::with_longest_wait) at the latest:
///
/// | endpoints that match | outcome |
/// |---|---|
/// | none | `Ok` |
/// | at least one accepted the event | `Ok` |
/// | none did so far | an error with a [`BroadcastError`] in it |
///
/// An endpoint without an outcome by then is tried further, as long as its lane's retry policy
/// allows. What `route` does not return is reported to the dispatcher's callbacks: the failures
/// beside an endpoint that accepted the event, and every outcome that comes later.
///
/// The routing information is not used. An endpoint that is
/// [gone](Dispatcher#endpoints-that-are-gone) did not accept the event until it is inserted again;
/// [remove](Self::remove) it to be no longer warned. Clones share the endpoints.
///
/// ```
/// use tidings::router::{EventFilter, WebhookRouter};
/// use tidings::{Dispatcher, Endpoint};
/// use tidings::tidings_notify::EventType;
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let dispatcher = Dispatcher::builder().build()?;
/// let router = WebhookRouter::new(dispatcher);
/// let comments = EventFilter::only([EventType::new("comment.created")?]);
/// router.insert("chat", Endpoint::new("https://chat.example.com/hooks")?, comments);
/// router.insert("audit", Endpoint::new("https://audit.example.com/hooks")?, EventFilter::all());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct WebhookRouter {
    dispatcher: Dispatcher,
    longest_wait: Duration,
    routed: Arc<RwLock<Routed>>,
}

/// What is routed to, which the dispatcher is made to have.
#[derive(Debug, Default)]
struct Routed {
    endpoints: HashMap<EndpointId, RoutedEndpoint>,
    /// Of the last insertion.
    version: u64,
}

#[derive(Debug)]
struct RoutedEndpoint {
    version: u64,
    endpoint: Endpoint,
    filter: EventFilter,
    /// The filter by which it is routed to: that of the endpoint that the dispatcher has.
    in_effect: Option<EventFilter>,
}

/// What it took to make the dispatcher have an endpoint, or not have it.
#[derive(Debug, Default)]
struct Applied {
    /// Whether the dispatcher did not have it at first.
    is_new: bool,
    removed: Vec<Message>,
}

/// Which events an endpoint gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventFilter(Option<Arc<BTreeSet<EventType>>>);

impl EventFilter {
    /// Accepts every event.
    pub fn all() -> Self {
        Self(None)
    }

    /// Accepts only events of these types.
    pub fn only(types: impl IntoIterator<Item = EventType>) -> Self {
        Self(Some(Arc::new(types.into_iter().collect())))
    }

    /// Whether events of a type are accepted.
    pub fn matches(&self, event_type: &EventType) -> bool {
        self.0
            .as_ref()
            .is_none_or(|types| types.contains(event_type))
    }
}

impl WebhookRouter {
    /// Routes through a dispatcher with its settings. The caller starts and stops it.
    /// Endpoints that the dispatcher has already are not routed to.
    pub fn new(dispatcher: Dispatcher) -> Self {
        Self {
            dispatcher,
            longest_wait: DEFAULT_TIMEOUT,
            routed: Arc::default(),
        }
    }

    /// Sets how long `route` waits, first for a place in the queue of each endpoint and then for the
    /// outcomes. An endpoint without a free place by then does not get the event, which is a
    /// failure. The default is 30 seconds; with [`Duration::MAX`] `route` waits for the final outcome
    /// of each delivery, which may take as long as the retry policy allows.
    #[must_use]
    pub fn with_longest_wait(mut self, longest_wait: Duration) -> Self {
        self.longest_wait = longest_wait;
        self
    }

    /// Adds an endpoint, or changes it and its filter. Returns `true` if it was added.
    ///
    /// Calls for the same id at the same time leave the router in the state of one of them. What they return may be
    /// swapped: of two that add the endpoint none may say so.
    pub fn insert(
        &self,
        id: impl Into<EndpointId>,
        endpoint: Endpoint,
        filter: EventFilter,
    ) -> bool {
        let id = id.into();
        let mut routed = self.routed();
        routed.version += 1;
        let version = routed.version;
        let before = routed.endpoints.remove(&id);
        let inserted = RoutedEndpoint {
            version,
            endpoint,
            filter,
            in_effect: before.and_then(|before| before.in_effect),
        };
        routed.endpoints.insert(id.clone(), inserted);
        drop(routed);
        self.apply(&id).is_new
    }

    /// Removes an endpoint, from the dispatcher too: see [`Dispatcher::remove`]. `None` if the router does not have it. What
    /// waited is reported in any case, and not returned if another call for this id at the same time has taken it out.
    pub fn remove(&self, id: impl AsRef<str>) -> Option<Vec<Message>> {
        let (id, _) = self.routed().endpoints.remove_entry(id.as_ref())?;
        Some(self.apply(&id).removed)
    }

    /// Makes the dispatcher have what is routed to under this id. The dispatcher calls its callbacks, which may use the
    /// router: not under the lock. So others may have changed what is routed to meanwhile, and the last one to look makes
    /// the dispatcher have that.
    fn apply(&self, id: &EndpointId) -> Applied {
        let mut applied = Applied::default();
        let mut is_first = true;
        loop {
            let wanted = self
                .read()
                .endpoints
                .get(id)
                .map(|it| (it.version, it.endpoint.clone()));
            let version = wanted.as_ref().map(|(version, _)| *version);
            if let Some((_, endpoint)) = wanted {
                applied.is_new |= self.dispatcher.insert(id, endpoint) && is_first;
            } else if let Some(messages) = self.dispatcher.remove(id) {
                applied.removed.extend(messages);
            }
            is_first = false;
            let mut routed = self.routed();
            let now = routed.endpoints.get_mut(id);
            if now.as_ref().map(|it| it.version) == version {
                if let Some(routed) = now {
                    routed.in_effect = Some(routed.filter.clone());
                }
                return applied;
            }
        }
    }

    /// The dispatcher.
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    fn routed(&self) -> RwLockWriteGuard<'_, Routed> {
        self.routed.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, Routed> {
        self.routed.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn matching(&self, event_type: &EventType) -> Vec<EndpointId> {
        let routed = self.read();
        let matches = |routed: &RoutedEndpoint| {
            let filter = routed.in_effect.as_ref();
            filter.is_some_and(|filter| filter.matches(event_type))
        };
        let matching = routed.endpoints.iter().filter(|(_, it)| matches(it));
        matching.map(|(id, _)| id.clone()).collect()
    }
}

#[async_trait]
impl Router for WebhookRouter {
    /// # Cancel safety
    ///
    /// Dropping the future leaves the deliveries that were queued to continue. Every outcome, also
    /// one that the future has got, is reported to the dispatcher's callbacks.
    async fn route(&self, _to: &RoutingInfo, event: &Event) -> Result<(), RouteError> {
        let matching = self.matching(&event.event_type);
        if matching.is_empty() {
            return Ok(());
        }
        let message = Message::from_event(event);
        let deadline = Instant::now() + self.longest_wait.min(MAX_LONGEST_WAIT);
        let mut deliveries: FuturesUnordered<_> = (matching.into_iter())
            .map(|id| deliver(&self.dispatcher, id, message.clone(), deadline))
            .collect();
        let mut pending = Vec::new();
        let mut unreturned = Unreturned {
            dispatcher: &self.dispatcher,
            outcomes: Vec::new(),
        };
        while let Some((id, outcome)) = deliveries.next().await {
            match outcome {
                Some(outcome) => unreturned.outcomes.push((id, outcome)),
                None => pending.push(id),
            }
        }
        let outcomes = std::mem::take(&mut unreturned.outcomes);
        let is_accepted = outcomes.iter().any(|(_, outcome)| outcome.is_ok());
        let failures =
            (outcomes.into_iter()).filter_map(|(id, outcome)| Some((id, outcome.err()?)));
        if is_accepted {
            (unreturned.outcomes).extend(failures.map(|(id, error)| (id, Err(error))));
            Ok(())
        } else {
            Err(RouteError::new(BroadcastError {
                failures: failures.collect(),
                pending,
            }))
        }
    }
}

/// Waits for the outcome of a delivery until a time. Without one by then, the delivery continues and
/// its outcome is reported.
async fn deliver(
    dispatcher: &Dispatcher,
    id: EndpointId,
    message: Message,
    deadline: Instant,
) -> (EndpointId, Option<Outcome>) {
    let queued = dispatcher.deliver_queued_by(deadline, &id, message).await;
    let outcome = match queued {
        Ok(awaited) => timeout_at(deadline, awaited).await.ok(),
        Err(refused) => Some(Err(refused)),
    };
    (id, outcome)
}

/// Outcomes that no caller has seen. What is left of them in the end is reported.
struct Unreturned<'a> {
    dispatcher: &'a Dispatcher,
    outcomes: Vec<(EndpointId, Outcome)>,
}

impl Drop for Unreturned<'_> {
    fn drop(&mut self) {
        for (id, outcome) in self.outcomes.drain(..) {
            self.dispatcher.report(&id, outcome);
        }
    }
}

/// No endpoint accepted an event, or none yet.
#[derive(Debug)]
pub struct BroadcastError {
    failures: Vec<(EndpointId, DeliveryError)>,
    pending: Vec<EndpointId>,
}

impl BroadcastError {
    /// The endpoints that failed for good, and why.
    pub fn failures(&self) -> &[(EndpointId, DeliveryError)] {
        &self.failures
    }

    /// The endpoints that had no outcome after the
    /// [longest wait](WebhookRouter::with_longest_wait), in no order. They are tried further.
    pub fn pending(&self) -> &[EndpointId] {
        &self.pending
    }
}

impl fmt::Display for BroadcastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, pending) = (self.failures.len(), self.pending.len());
        write!(
            f,
            "none of {} endpoints accepted the event",
            failed + pending
        )?;
        if pending == 0 {
            Ok(())
        } else {
            write!(f, " in time: {failed} failed, {pending} are still tried")
        }
    }
}

impl StdError for BroadcastError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.failures.first().map(|(_, error)| error as _)
    }
}
