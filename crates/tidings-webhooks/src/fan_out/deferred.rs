//! Deferred events become deliveries, beside those that are made directly.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{FanOut, listeners};
use crate::store::{AcceptedEvent, Addressed, DeferredEvent};
use crate::{StoreError, telemetry};

/// Most deliveries that one transaction makes. It is short, because the deliveries of other users are
/// made between two of them.
const DELIVERIES_PER_STEP: usize = 500;

/// Most events that are read at a time, and most bytes of them after the first.
const PAGE: usize = 256;
const PAGE_BYTES: usize = 1 << 20;

/// How often to look for deferred events that an instance has left behind.
const POLL: Duration = Duration::from_secs(5);

/// What a look at the deferred events found.
enum Found {
    Nothing,
    /// Another instance took some of them.
    TakenElsewhere,
    Events,
}

impl FanOut {
    /// Makes the deliveries of deferred events, in their order, until it is dropped.
    pub(crate) async fn make_deferred(&self) {
        const MAKING: &str = "making the deliveries of events with many endpoints";
        let never = CancellationToken::new();
        loop {
            let page = || self.make_page();
            match self.until_done(MAKING, &never, page).await {
                Err(StoreError::Closed) => return,
                // What is refused again and again keeps its place as well.
                Ok(Found::Events) | Err(_) => continue,
                Ok(Found::Nothing | Found::TakenElsewhere) => {}
            }
            // Not an error: the wait is over in any case.
            let _ = tokio::time::timeout(POLL, self.has_deferred.notified()).await;
        }
    }

    async fn make_page(&self) -> Result<Found, StoreError> {
        let page = self.store.deferred(PAGE, PAGE_BYTES).await?;
        if page.is_empty() {
            return Ok(Found::Nothing);
        }
        let accepted = page
            .iter()
            .filter_map(|deferred| deferred.event.as_ref().ok());
        let users = listeners::users(accepted.map(|accepted| &accepted.event));
        let listeners = listeners::Listeners::new(self.store.audience(&users).await?.listeners);
        let mut step = Step::default();
        for DeferredEvent { number, event } in page {
            let addressed = match event {
                Ok(accepted) => listeners
                    .of(&accepted)
                    .map(|to| self.address(accepted.event, to)),
                Err(reason) => {
                    tracing::error!(
                        number,
                        reason,
                        "an accepted event cannot be read, its webhooks are not sent"
                    );
                    None
                }
            };
            let size = addressed.as_ref().map_or(0, |addressed| addressed.to.len());
            if step.size + size > DELIVERIES_PER_STEP && !self.make(&mut step).await? {
                return Ok(Found::TakenElsewhere);
            }
            let rest = match addressed {
                Some(addressed) => Some(self.make_all_but_the_last_part(addressed).await?),
                None => None,
            };
            step.size += rest.as_ref().map_or(0, |addressed| addressed.to.len());
            step.events.push((number, rest));
        }
        if self.make(&mut step).await? {
            Ok(Found::Events)
        } else {
            Ok(Found::TakenElsewhere)
        }
    }

    /// Makes deliveries of an event with more endpoints than one step may have, except for the last
    /// part, with which the event stops being deferred.
    async fn make_all_but_the_last_part(
        &self,
        mut addressed: Addressed,
    ) -> Result<Addressed, StoreError> {
        while addressed.to.len() > DELIVERIES_PER_STEP {
            let rest = addressed.to.split_off(DELIVERIES_PER_STEP);
            let part = Addressed {
                event: addressed.event.clone(),
                to: std::mem::replace(&mut addressed.to, rest),
            };
            self.add(&Arc::from([part])).await?;
        }
        Ok(addressed)
    }

    /// Makes a step, and empties it. Returns whether its events were still deferred.
    async fn make(&self, step: &mut Step) -> Result<bool, StoreError> {
        let events = std::mem::take(step).events;
        if events.is_empty() {
            return Ok(true);
        }
        let to = events
            .iter()
            .filter_map(|(_, addressed)| addressed.as_ref());
        let endpoints = super::endpoints(to);
        let at = self.clock.wall.now();
        let Some(added) = self.store.add_deferred(events, at).await? else {
            return Ok(false);
        };
        telemetry::deliveries_added(added);
        self.lanes.wake(endpoints);
        Ok(true)
    }
}

/// What one transaction makes.
#[derive(Default)]
struct Step {
    events: Vec<(i64, Option<Addressed>)>,
    /// The number of its deliveries.
    size: usize,
}

impl AcceptedEvent {
    /// The number that stands for all endpoints, of now and later.
    pub(crate) const EVERY_ENDPOINT: u64 = i64::MAX.unsigned_abs();
}
