use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidings_notify::{Event, RouteError, Router, RoutingInfo};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

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
    ///
    /// It changes together with the lanes, in one step. The dispatcher reports what it does meanwhile,
    /// so that those who wait for it must not block their threads.
    known: Mutex<HashMap<EndpointId, Instance>>,
}

struct Instance {
    url: String,
    last_used: Instant,
}

/// Builds an [`InstanceRouter`].
#[must_use]
pub struct InstanceRouterBuilder {
    signer: Signer,
    timeout: Duration,
    resolver: Resolver,
    dispatcher: DispatcherBuilder,
}

impl InstanceRouter {
    /// Returns a builder for a router whose requests are signed in a way that all instances know.
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
    async fn lane(&self, instance_id: &str, url: String) -> Result<EndpointId, ConfigError> {
        let id = EndpointId::from(instance_id);
        let mut known = self.inner.known.lock().await;
        let last_used = Instant::now();
        if let Some(instance) = known.get_mut(&id).filter(|it| it.url == url) {
            instance.last_used = last_used;
            return Ok(id);
        }
        let endpoint = Endpoint::builder(&url)
            .signer(self.inner.signer.clone())
            .timeout(self.inner.timeout)
            .build()?;
        if known.len() >= MAX_INSTANCES && !known.contains_key(&id) {
            let oldest = known.iter().min_by_key(|(_, instance)| instance.last_used);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                known.remove(&oldest);
                self.inner.dispatcher.remove(oldest);
            }
        }
        self.inner.dispatcher.insert(&id, endpoint);
        known.insert(id.clone(), Instance { url, last_used });
        Ok(id)
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

    /// Sets the deadline for one event: more than zero, at most an hour. The default is 5 seconds. A
    /// request that still waits behind others by then is made all the same.
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
        let deadline = Instant::now() + self.inner.timeout;
        let lane = self.lane(&to.instance_id, url).await;
        let lane = lane.map_err(RouteError::new)?;
        let message = Message::json(event)
            .map_err(RouteError::new)?
            .with_id(event.id.to_string())
            .map_err(RouteError::new)?
            .with_type(event.event_type.as_str());
        let dispatcher = &self.inner.dispatcher;
        let queued = dispatcher.deliver_queued_by(deadline, &lane, message).await;
        match timeout_at(deadline, queued.map_err(RouteError::new)?).await {
            Ok(outcome) => outcome.map(drop).map_err(RouteError::new),
            Err(_elapsed) => Err(RouteError::new(Overdue)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the instance did not take the event in time")]
struct Overdue;

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
    use std::collections::HashSet;

    use tokio::task::JoinSet;

    use super::*;
    use crate::signing::{Secret, StandardSigner};

    fn router() -> InstanceRouter {
        let signer = StandardSigner::new([Secret::generate()]).unwrap();
        InstanceRouter::builder(signer).build().unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn every_instance_that_is_known_has_a_lane_however_many_come_at_once() {
        let router = router();
        let mut callers = JoinSet::new();
        // The one that is forgotten is the one that is wanted next.
        for _ in 0..4 {
            let router = router.clone();
            callers.spawn(async move {
                for number in (0..=MAX_INSTANCES).cycle().take(10 * MAX_INSTANCES) {
                    let url = format!("http://host{number}.example/");
                    router.lane(&number.to_string(), url).await.unwrap();
                }
            });
        }
        callers.join_all().await;
        let known: HashSet<_> = router.inner.known.lock().await.keys().cloned().collect();
        let lanes: HashSet<_> = router.inner.dispatcher.endpoints().into_iter().collect();
        assert_eq!(known, lanes);
    }

    #[tokio::test(start_paused = true)]
    async fn for_a_new_instance_the_one_that_was_used_longest_ago_is_forgotten() {
        let router = router();
        let lane = async |number: usize| {
            let url = format!("http://host{number}.example/");
            router.lane(&number.to_string(), url).await.unwrap();
        };
        for number in 0..MAX_INSTANCES {
            lane(number).await;
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        lane(0).await;
        lane(MAX_INSTANCES).await;
        let endpoints = router.inner.dispatcher.endpoints();
        assert_eq!(endpoints.len(), MAX_INSTANCES);
        let is_known = |id: &str| endpoints.iter().any(|known| known.as_str() == id);
        assert!(is_known("0") && !is_known("1"));
        assert!(is_known(&MAX_INSTANCES.to_string()));
    }

    #[tokio::test]
    async fn an_instance_with_a_new_url_keeps_its_lane() {
        let router = router();
        let url = "http://old.example/".to_owned();
        router.lane("a", url).await.unwrap();
        let url = "http://new.example/".to_owned();
        router.lane("a", url).await.unwrap();
        assert_eq!(router.inner.dispatcher.endpoints().len(), 1);
        assert_eq!(
            router.inner.known.lock().await["a"].url,
            "http://new.example/"
        );
    }
}
