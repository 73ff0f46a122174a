use std::collections::{BTreeSet, HashMap};
use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use async_trait::async_trait;
use tidings_notify::{Event, EventType, RouteError, Router, RoutingInfo};
use tokio::task::JoinSet;

use crate::{DeliveryError, Dispatcher, Endpoint, EndpointId, Message};

/// Routes each event to every endpoint whose filter accepts it, to all at the same time.
///
/// | endpoints that match | outcome |
/// |---|---|
/// | none | `Ok` |
/// | all accepted the event | `Ok` |
/// | some did | `Ok`, and a warning for each that did not |
/// | none did | an error with a [`BroadcastError`] in it |
///
/// Every endpoint is tried as often as its lane's retry policy allows, and `route` returns when the last
/// delivery has its final outcome. An endpoint that is down holds it for as long as its retry policy and its
/// circuit allow: while the circuit is open no attempt is made, and none is counted.
/// [`RetryPolicy::with_max_age`](crate::retry::RetryPolicy::with_max_age) bounds that time, also behind an
/// open circuit; [`with_max_attempts`](crate::retry::RetryPolicy::with_max_attempts) bounds the attempts.
/// [`LaneConfig::without_retry`](crate::LaneConfig::without_retry) makes one attempt, and none at all while
/// the circuit is open.
///
/// The routing information is not used. An endpoint that is
/// [gone](Dispatcher#endpoints-that-are-gone) did not accept the event until it is inserted again;
/// [remove](Self::remove) it to be no longer warned. Clones share the endpoints.
///
/// ```
/// use tidings::router::{EventFilter, WebhookRouter};
/// use tidings::{Dispatcher, Endpoint};
/// use tidings_notify::EventType;
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
    filters: Arc<RwLock<HashMap<EndpointId, EventFilter>>>,
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
            filters: Arc::default(),
        }
    }

    /// Adds an endpoint, or changes it and its filter. Returns `true` if it was added.
    ///
    /// Calls for the same id at the same time leave the router in the state of either.
    pub fn insert(
        &self,
        id: impl Into<EndpointId>,
        endpoint: Endpoint,
        filter: EventFilter,
    ) -> bool {
        let id = id.into();
        // The dispatcher calls its callbacks, which may use the router: not under the lock.
        let is_new = self.dispatcher.insert(&id, endpoint);
        self.filters().insert(id, filter);
        is_new
    }

    /// Removes an endpoint, from the dispatcher too: see [`Dispatcher::remove`].
    pub fn remove(&self, id: impl AsRef<str>) -> Option<Vec<Message>> {
        self.filters().remove(id.as_ref())?;
        self.dispatcher.remove(id)
    }

    /// The dispatcher.
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    fn filters(&self) -> RwLockWriteGuard<'_, HashMap<EndpointId, EventFilter>> {
        self.filters.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn matching(&self, event_type: &EventType) -> Vec<EndpointId> {
        let filters = self.filters.read().unwrap_or_else(PoisonError::into_inner);
        let matching = filters
            .iter()
            .filter(|(_, filter)| filter.matches(event_type));
        matching.map(|(id, _)| id.clone()).collect()
    }
}

#[async_trait]
impl Router for WebhookRouter {
    /// # Cancel safety
    ///
    /// Dropping the future leaves the deliveries that were queued to continue; their failures are
    /// reported to the dispatcher's error callback.
    async fn route(&self, _to: &RoutingInfo, event: &Event) -> Result<(), RouteError> {
        let matching = self.matching(&event.event_type);
        if matching.is_empty() {
            return Ok(());
        }
        let message = Message::from_event(event);
        let endpoints = matching.len();
        let mut deliveries = JoinSet::new();
        for id in matching {
            let (dispatcher, message) = (self.dispatcher.clone(), message.clone());
            deliveries.spawn(async move {
                let outcome = dispatcher.deliver(&id, message).await;
                outcome.err().map(|error| (id, error))
            });
        }
        // A task neither panics nor is aborted while this waits for it.
        let failures: Vec<_> = deliveries.join_all().await.into_iter().flatten().collect();
        if failures.len() == endpoints {
            return Err(RouteError::new(BroadcastError { failures }));
        }
        for (endpoint, error) in failures {
            tracing::warn!(
                %endpoint,
                error = &error as &dyn StdError,
                "an endpoint did not get an event that others got"
            );
        }
        Ok(())
    }
}

/// No endpoint accepted an event.
#[derive(Debug)]
pub struct BroadcastError {
    failures: Vec<(EndpointId, DeliveryError)>,
}

impl BroadcastError {
    /// The endpoints, and why each of them does not have the event. There is at least one.
    pub fn failures(&self) -> &[(EndpointId, DeliveryError)] {
        &self.failures
    }
}

impl fmt::Display for BroadcastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "none of {} endpoints accepted the event",
            self.failures.len()
        )
    }
}

impl StdError for BroadcastError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.failures.first().map(|(_, error)| error as _)
    }
}
