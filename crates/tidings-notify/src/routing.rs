//! Handing events to the other instances where their users are connected, behind the caller's back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::notifier::Shared;
use crate::presence::{DynPresence, Presence, PresenceError};
use crate::{Event, Router, RoutingInfo};

/// Events that may wait to be routed. Those that find no place are left to the other instance's
/// sweep.
pub(crate) const ROUTE_QUEUE: usize = 1024;

/// Events routed at a time, so that one instance that does not answer holds up few others.
const CONCURRENT_ROUTES: usize = 64;

/// Time for one hand-over. After it the other instance's sweep has found the event.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(2);

/// How events reach other instances.
#[derive(Debug, Clone)]
pub(crate) struct Routes {
    pub(crate) presence: DynPresence,
    pub(crate) router: Arc<dyn Router>,
    pub(crate) instance_id: String,
}

/// Routes queued events until the queue is closed and empty.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    routes: Routes,
    mut queue: mpsc::Receiver<Arc<Event>>,
) {
    let routes = Arc::new(routes);
    let mut running = JoinSet::new();
    while let Some(event) = queue.recv().await {
        if running.len() >= CONCURRENT_ROUTES {
            running.join_next().await;
        }
        // Those that have ended meanwhile are forgotten.
        while running.try_join_next().is_some() {}
        let (shared, routes) = (shared.clone(), routes.clone());
        running.spawn(route(shared, routes, event));
    }
    running.join_all().await;
}

/// Hands one event to every other instance that has its user, to all at once: one that does not
/// answer keeps it from no other.
async fn route(shared: Arc<Shared>, routes: Arc<Routes>, event: Arc<Event>) {
    let places = match routes.presence.locate(&event.user).await {
        Ok(places) => places,
        Err(PresenceError::NotFound) => return,
        Err(error) => {
            shared.stats.routing_failed();
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a user's connections could not be located"
            );
            return;
        }
    };
    let mut hand_overs = JoinSet::new();
    for place in places {
        if place.instance_id != routes.instance_id {
            let (shared, routes, event) = (shared.clone(), routes.clone(), event.clone());
            hand_overs.spawn(async move { hand_over(&shared, &routes, &place, &event).await });
        }
    }
    hand_overs.join_all().await;
}

async fn hand_over(shared: &Shared, routes: &Routes, place: &RoutingInfo, event: &Event) {
    let instance = &place.instance_id;
    match timeout(ROUTE_TIMEOUT, routes.router.route(place, event)).await {
        Ok(Ok(())) => shared.stats.routed(),
        Ok(Err(error)) => {
            shared.stats.routing_failed();
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                instance,
                "an event was not routed and is left to the sweep"
            );
        }
        Err(_elapsed) => {
            shared.stats.routing_failed();
            tracing::warn!(
                instance,
                "an event was not routed in time and is left to the sweep"
            );
        }
    }
}
