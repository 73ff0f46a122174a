use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tidings_notify::{Event, RouteError, Router, RoutingInfo};
use tokio::time::Instant;

use crate::signing::Signer;
use crate::{
    ConfigError, Dispatcher, DispatcherBuilder, Endpoint, EndpointId, LaneConfig, Message, Sender,
};

/// The key of the [metadata](RoutingInfo::metadata) under which an instance gives the URL that
/// takes its events.
pub const URL_METADATA: &str = "url";

/// Default deadline for one event. After that, the other instance's sweep finds the event.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// Most instances that are known at a time. For a new one, the one that has not been used for the
/// longest time is forgotten.
const MAX_INSTANCES: usize = 1000;

type Resolver = Arc<dyn Fn(&RoutingInfo) -> Option<String> + Send + Sync>;

/// Routes each event to the instance that holds its user's connection, by one signed POST.
///
/// The body is the event as JSON, and [`InstanceReceiver`](super::InstanceReceiver) receives it
/// there. Each instance has a lane of its own: one that is down does not delay the others. There are
/// no retries, because the event is stored and the other instance's sweep finds it soon; while an
/// instance's circuit is open, routing to it fails at once.
///
/// Clones share everything. Call [`start`](Self::start) before routing.
#[derive(Clone)]
pub struct InstanceRouter {
    inner: Arc<Inner>,
}

struct Inner {
    dispatcher: Dispatcher,
    signer: Signer,
    timeout: Duration,
    resolver: Resolver,
    /// The instances that have a lane, by their ids: a URL may hold a secret, and ids are in traces.
    known: Mutex<HashMap<EndpointId, Instance>>,
}

struct Instance {
    url: String,
    last_used: Instant,
}

/// Describes an [`InstanceRouter`].
#[must_use]
pub struct InstanceRouterBuilder {
    signer: Signer,
    timeout: Duration,
    resolver: Resolver,
    dispatcher: DispatcherBuilder,
}

impl InstanceRouter {
    /// Starts to describe a router whose requests are signed in a way that all instances know.
    pub fn builder(signer: impl Into<Signer>) -> InstanceRouterBuilder {
        InstanceRouterBuilder {
            signer: signer.into(),
            timeout: DEFAULT_TIMEOUT,
            resolver: Arc::new(|to| to.metadata.get(URL_METADATA).cloned()),
            dispatcher: Dispatcher::builder(),
        }
    }

    /// Starts the workers. Starting again, or after a stop, has no effect.
    ///
    /// # Panics
    ///
    /// When it is called outside a Tokio runtime.
    pub fn start(&self) {
        self.inner.dispatcher.start();
    }

    /// Waits for the hand-overs under way and ends the workers.
    pub async fn stop(&self) {
        self.inner.dispatcher.stop().await;
    }

    /// The lane of an instance, ready to be used.
    fn lane(&self, instance_id: &str, url: String) -> Result<EndpointId, ConfigError> {
        let id = EndpointId::from(instance_id);
        if let Some(instance) = self.known().get_mut(&id).filter(|it| it.url == url) {
            instance.last_used = Instant::now();
            return Ok(id);
        }
        let endpoint = Endpoint::builder(&url)
            .signer(self.inner.signer.clone())
            .timeout(self.inner.timeout)
            .build()?;
        // The dispatcher reports what it does: not under the lock.
        self.inner.dispatcher.insert(&id, endpoint);
        let forgotten = {
            let mut known = self.known();
            let is_full = known.len() >= MAX_INSTANCES && !known.contains_key(&id);
            let oldest = known.iter().min_by_key(|(_, instance)| instance.last_used);
            let oldest = oldest.map(|(id, _)| id.clone()).filter(|_| is_full);
            if let Some(oldest) = &oldest {
                known.remove(oldest);
            }
            let last_used = Instant::now();
            known.insert(id.clone(), Instance { url, last_used });
            oldest
        };
        if let Some(oldest) = forgotten {
            self.inner.dispatcher.remove(oldest);
        }
        Ok(id)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<EndpointId, Instance>> {
        let known = self.inner.known.lock();
        known.unwrap_or_else(PoisonError::into_inner)
    }
}

impl InstanceRouterBuilder {
    /// Finds the URL of an instance in another way than in its metadata under `url`. `None` means
    /// that the instance cannot be reached.
    pub fn resolver(
        mut self,
        resolver: impl Fn(&RoutingInfo) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }

    /// Sets the deadline for one event: more than zero, at most an hour. The default is 5 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends through this sender, which decides how connections to other instances are made: with
    /// which certificates, for instance. The default is `Sender::builder().build()`.
    pub fn sender(mut self, sender: Sender) -> Self {
        self.dispatcher = self.dispatcher.sender(sender);
        self
    }

    /// Builds the router.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for `timeout` when out of range.
    pub fn build(self) -> Result<InstanceRouter, ConfigError> {
        Endpoint::builder("http://localhost")
            .timeout(self.timeout)
            .build()?;
        // What an instance replies while it starts or stops may change later.
        let lane = LaneConfig::default()
            .without_retry()
            .without_stop_when_gone();
        let dispatcher = self.dispatcher.lane(lane).build()?;
        Ok(InstanceRouter {
            inner: Arc::new(Inner {
                dispatcher,
                signer: self.signer,
                timeout: self.timeout,
                resolver: self.resolver,
                known: Mutex::default(),
            }),
        })
    }
}

#[async_trait]
impl Router for InstanceRouter {
    async fn route(&self, to: &RoutingInfo, event: &Event) -> Result<(), RouteError> {
        let url = (self.inner.resolver)(to).ok_or(UnknownInstance)?;
        let lane = self.lane(&to.instance_id, url).map_err(RouteError::new)?;
        let message = Message::json(event)
            .map_err(RouteError::new)?
            .with_id(event.id.to_string())
            .map_err(RouteError::new)?
            .with_type(&event.event_type);
        self.inner
            .dispatcher
            .deliver(lane, message)
            .await
            .map(drop)
            .map_err(RouteError::new)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the instance has no known address")]
struct UnknownInstance;

impl From<UnknownInstance> for RouteError {
    fn from(error: UnknownInstance) -> Self {
        Self::new(error)
    }
}

impl fmt::Debug for InstanceRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceRouter")
            .field("signer", &self.inner.signer)
            .field("timeout", &self.inner.timeout)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for InstanceRouterBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceRouterBuilder")
            .field("signer", &self.signer)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::{Secret, StandardSigner};

    fn router() -> InstanceRouter {
        let signer = StandardSigner::new([Secret::generate()]).unwrap();
        InstanceRouter::builder(signer).build().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn for_a_new_instance_the_one_that_was_used_longest_ago_is_forgotten() {
        let router = router();
        let lane = |number: usize| {
            let url = format!("http://host{number}.example/");
            router.lane(&number.to_string(), url).unwrap();
        };
        for number in 0..MAX_INSTANCES {
            lane(number);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        lane(0);
        lane(MAX_INSTANCES);
        let endpoints = router.inner.dispatcher.endpoints();
        assert_eq!(endpoints.len(), MAX_INSTANCES);
        let is_known = |id: &str| endpoints.iter().any(|known| known.as_str() == id);
        assert!(is_known("0") && !is_known("1"));
        assert!(is_known(&MAX_INSTANCES.to_string()));
    }

    #[tokio::test]
    async fn an_instance_with_a_new_url_keeps_its_lane() {
        let router = router();
        router.lane("a", "http://old.example/".to_owned()).unwrap();
        router.lane("a", "http://new.example/".to_owned()).unwrap();
        assert_eq!(router.inner.dispatcher.endpoints().len(), 1);
        assert_eq!(router.known()["a"].url, "http://new.example/");
    }
}
