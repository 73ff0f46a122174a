//! Sending events to the other instances where their users are connected, in the background.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use crate::instance::Instance;
use crate::presence::{Presence, PresenceError};
use crate::{Event, Router, RoutingInfo};

/// Events that may wait to be routed. When the queue is full, events are left to the other
/// instance's sweep.
pub(crate) const ROUTE_QUEUE: usize = 1024;

/// Events routed at a time, so that an instance that does not reply delays few events.
const CONCURRENT_ROUTES: usize = 64;

/// Time for one event to one instance. After it the other instance's sweep has found the event.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(2);

/// How events reach other instances.
#[derive(Debug, Clone)]
pub(crate) struct Routes {
    pub(crate) presence: Arc<dyn Presence>,
    pub(crate) router: Arc<dyn Router>,
    pub(crate) instance_id: String,
}

/// Routes queued events until the queue is closed and empty.
pub(crate) async fn run(
    instance: &Arc<Instance>,
    routes: Routes,
    mut queue: mpsc::Receiver<Arc<Event>>,
) {
    let routes = Arc::new(routes);
    let mut running = JoinSet::new();
    while let Some(event) = queue.recv().await {
        if running.len() >= CONCURRENT_ROUTES
            && let Some(routed) = running.join_next().await
        {
            finish(instance, routed);
        }
        while let Some(routed) = running.try_join_next() {
            finish(instance, routed);
        }
        let (instance, routes) = (instance.clone(), routes.clone());
        running.spawn(route(instance, routes, event));
    }
    while let Some(routed) = running.join_next().await {
        finish(instance, routed);
    }
}

/// Sends one event to every other instance that has its user, to all at once, so that an instance
/// that does not reply delays no other.
async fn route(instance: Arc<Instance>, routes: Arc<Routes>, event: Arc<Event>) {
    let places = match routes.presence.locate(&event.user).await {
        Ok(places) => places,
        Err(PresenceError::NotFound) => return,
        Err(error) => {
            instance.stats.routing_failed();
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to look up which instances have connections of a user; they will find its event in the store"
            );
            return;
        }
    };
    let mut sends = JoinSet::new();
    for place in places {
        if place.instance_id != routes.instance_id {
            let (instance, routes, event) = (instance.clone(), routes.clone(), event.clone());
            sends.spawn(async move { send(&instance, &routes, &place, &event).await });
        }
    }
    // One that panics ends no other.
    while let Some(sent) = sends.join_next().await {
        finish(&instance, sent);
    }
}

/// Counts work that panicked.
fn finish(instance: &Instance, done: Result<(), JoinError>) {
    if let Err(error) = done {
        instance.stats.routing_failed();
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "routing an event panicked; the other instance will find it in the store"
        );
    }
}

async fn send(instance: &Instance, routes: &Routes, place: &RoutingInfo, event: &Event) {
    let to = &place.instance_id;
    match timeout(ROUTE_TIMEOUT, routes.router.route(place, event)).await {
        Ok(Ok(())) => instance.stats.routed(),
        Ok(Err(error)) => {
            instance.stats.routing_failed();
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                instance = to,
                "failed to send an event to another instance, which will find it in the store"
            );
        }
        Err(_elapsed) => {
            instance.stats.routing_failed();
            tracing::warn!(
                instance = to,
                "another instance did not take an event in time, and will find it in the store"
            );
        }
    }
}
