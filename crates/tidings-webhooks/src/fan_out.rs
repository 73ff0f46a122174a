//! From accepted events to deliveries.
//!
//! Accepting an event writes one message to a durable stream, in the transaction of the caller that accepts
//! it. A consumer group works through that stream: it finds out which endpoints want each event, and
//! stores the event, once, with a delivery for each of them. A message that comes again after a crash
//! makes no second delivery, because an event and an endpoint have one.
//!
//! # Large fan-outs
//!
//! One message may become tens of thousands of deliveries, and all others would wait for it in the
//! stream. So a message with many deliveries is *deferred*: its events are put aside in the store, which
//! takes milliseconds, and their deliveries are made in small steps beside those of later messages
//! (`deferred.rs`). The same is done with events of a user who has had many deliveries in one batch.
//!
//! The order of each user's events stays: while a user has a deferred event, the later events of this
//! user are deferred as well, behind it.
//!
//! # A store that fails
//!
//! Messages that came again later would come after those that were accepted meanwhile. So a step that the store
//! does not do is repeated in place (`repeats.rs`), for as long as the stream extends the claims of its messages.
//! What was broken off all the same comes before later messages (`unfinished.rs`).

mod deferred;
pub(crate) mod leader;
mod listeners;
pub(crate) mod message;
mod repeats;
mod unfinished;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tidings_notify::UserId;
use tidings_stream::{BatchError, HandlerError, Message};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, later};
use crate::lanes::Shared;
use crate::store::{AcceptedEvent, Addressed};
use crate::{EndpointId, Store, StoreError, WebhookEvent, telemetry};
use listeners::Listeners;
use unfinished::Unfinished;

/// The short name of the stream of accepted events.
pub const STREAM: &str = "webhook-events";

/// The stream that keeps those of them that cannot be read.
pub(crate) const UNREADABLE: &str = "webhook-events.dead";

/// The consumer group that makes deliveries of them.
pub(crate) const GROUP: &str = "fan-out";

/// How many events make a step: it reads endpoints once. The last message of a step may exceed it.
const EVENTS_PER_STEP: usize = 512;

/// Most deliveries that one transaction stores.
const DELIVERIES_PER_STEP: usize = 1000;

/// Most deliveries of one message that are made directly.
const DIRECT_OF_MESSAGE: usize = 1000;

/// Most deliveries of one user that are made directly in a batch of messages.
const DIRECT_OF_USER: usize = 4000;

/// The pause before messages that came too early are put back.
const ORDER_PAUSE: Duration = Duration::from_millis(100);

/// What the store is asked for, in the log.
const MAKING: &str = "making the deliveries of new events";

/// The failure of a stream in a transaction that a store has a part in.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn stream_failure(error: tidings_stream::Error) -> StoreError {
    match error {
        tidings_stream::Error::Closed => StoreError::Closed,
        tidings_stream::Error::Full(source) => StoreError::Full(source),
        other => StoreError::backend(other),
    }
}

/// Makes the deliveries of accepted events.
#[derive(Debug)]
pub(crate) struct FanOut {
    store: Arc<dyn Store>,
    clock: Clock,
    lanes: Arc<Shared>,
    has_deferred: Notify,
    unfinished: Unfinished,
}

/// An event, and the endpoints that get it with their first waits.
type Wanted = (WebhookEvent, Vec<(EndpointId, Option<Duration>)>);

impl FanOut {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Clock, lanes: Arc<Shared>) -> Self {
        Self {
            store,
            clock,
            lanes,
            has_deferred: Notify::new(),
            unfinished: Unfinished::default(),
        }
    }

    /// For how long messages are claimed, until the claim is extended. The claims of a leader that has crashed are
    /// over before its lead is, so that the next leader begins with them.
    pub(crate) fn claims(&self) -> Duration {
        self.lanes.lease() / 2
    }

    /// Makes the deliveries of a batch of messages, or defers them. While the store fails it repeats what it
    /// does, until `closing` is cancelled.
    pub(crate) async fn handle(
        &self,
        mut messages: Vec<Message>,
        closing: &CancellationToken,
    ) -> Result<(), BatchError> {
        messages.sort_by_key(|message| message.id);
        let Some(begun) = self.unfinished.begin(&messages, self.claims()) else {
            closing.run_until_cancelled(sleep(ORDER_PAUSE)).await;
            let because = "an earlier message comes first";
            return Err(HandlerError::retry_after(Duration::ZERO, because).into());
        };
        let handled = self.make_batch(&messages, closing).await;
        if handled.is_ok() || !closing.is_cancelled() {
            begun.end();
        }
        handled
    }

    async fn make_batch(
        &self,
        messages: &[Message],
        closing: &CancellationToken,
    ) -> Result<(), BatchError> {
        let failed = |error: StoreError| {
            if closing.is_cancelled() {
                // It comes again before all later ones.
                HandlerError::retry_after(Duration::ZERO, error)
            } else {
                HandlerError::retry(error)
            }
        };
        let mut unreadable = BatchError::none();
        let mut shares = Shares::default();
        let mut step = Vec::new();
        let mut size = 0;
        for message in messages {
            match message::read(message) {
                Ok(events) => {
                    size += events.len();
                    step.push(events);
                }
                Err(error) => unreadable.push(message.id, HandlerError::skip_retry(error)),
            }
            if size >= EVENTS_PER_STEP {
                let step = std::mem::take(&mut step);
                let made = self.make_step(step, &mut shares, closing).await;
                made.map_err(failed)?;
                size = 0;
            }
        }
        let made = self.make_step(step, &mut shares, closing).await;
        made.map_err(failed)?;
        unreadable.into_result()
    }

    async fn make_step(
        &self,
        messages: Vec<Vec<AcceptedEvent>>,
        shares: &mut Shares,
        closing: &CancellationToken,
    ) -> Result<(), StoreError> {
        if messages.is_empty() {
            return Ok(());
        }
        let events = messages.iter().flatten().map(|accepted| &accepted.event);
        let users = listeners::users(events);
        let look = || self.in_time(self.store.audience(&users));
        let audience = self.until_done(MAKING, closing, look).await?;
        let listeners = Listeners::new(audience.listeners);
        shares.deferred.extend(audience.deferred);
        let mut direct = Vec::new();
        let mut deferred = Vec::new();
        for message in messages {
            let Some(wanted) = wanted_directly(&listeners, &message) else {
                let users = message
                    .iter()
                    .map(|accepted| accepted.event.user().cloned());
                shares.deferred.extend(users);
                deferred.extend(message);
                continue;
            };
            for (accepted, to) in message.into_iter().zip(wanted) {
                match to {
                    Some(to) if shares.allow(accepted.event.user(), to.len()) => {
                        direct.push((accepted.event, to));
                    }
                    Some(_) => deferred.push(accepted),
                    None => {}
                }
            }
        }
        // In this order: a user's deferred events come after the direct ones, also if the process ends
        // in between.
        self.add_directly(direct, closing).await?;
        if !deferred.is_empty() {
            telemetry::events_deferred(deferred.len());
            let defer = || self.in_time(self.store.defer(deferred.clone()));
            self.until_done(MAKING, closing, defer).await?;
            self.has_deferred.notify_one();
        }
        Ok(())
    }

    async fn add_directly(
        &self,
        wanted: Vec<Wanted>,
        closing: &CancellationToken,
    ) -> Result<(), StoreError> {
        let mut step: Vec<Addressed> = Vec::new();
        let mut size = 0;
        for (event, to) in wanted {
            let to = self.address(event, to);
            if size + to.to.len() > DELIVERIES_PER_STEP {
                let full: Arc<[Addressed]> = std::mem::take(&mut step).into();
                self.until_done(MAKING, closing, || self.add(&full)).await?;
                size = 0;
            }
            size += to.to.len();
            step.push(to);
        }
        let rest: Arc<[Addressed]> = step.into();
        self.until_done(MAKING, closing, || self.add(&rest)).await
    }

    /// Stores events with their deliveries, in one transaction.
    async fn add(&self, step: &Arc<[Addressed]>) -> Result<(), StoreError> {
        if step.is_empty() {
            return Ok(());
        }
        let tickets = self.lanes.tickets(endpoints(step.iter()));
        let at = self.clock.wall.now();
        let adding = self.store.add_deliveries(Arc::clone(step), at);
        let added = self.in_time(adding).await?;
        telemetry::deliveries_added(added.count);
        self.lanes.made(&tickets, step, &added.deliveries);
        Ok(())
    }

    fn address(&self, event: WebhookEvent, to: Vec<(EndpointId, Option<Duration>)>) -> Addressed {
        let now = self.clock.now();
        let default_wait = self.lanes.defaults().first_wait();
        let due = |wait: Option<Duration>| later(now, wait.unwrap_or(default_wait));
        // The first attempt and later ones send the same.
        let event = event.into_stored();
        Addressed {
            event,
            to: to.into_iter().map(|(id, wait)| (id, due(wait))).collect(),
        }
    }
}

/// Who wants each event of a message; `None` if that is too much to be made directly.
#[expect(
    clippy::type_complexity,
    reason = "one event, its endpoints, their first waits"
)]
fn wanted_directly(
    listeners: &Listeners,
    message: &[AcceptedEvent],
) -> Option<Vec<Option<Vec<(EndpointId, Option<Duration>)>>>> {
    let mut size = 0;
    let mut wanted = Vec::with_capacity(message.len());
    for accepted in message {
        let to = listeners.of(accepted);
        size += to.as_ref().map_or(0, Vec::len);
        if size > DIRECT_OF_MESSAGE {
            return None;
        }
        wanted.push(to);
    }
    Some(wanted)
}

/// What the users of a batch have had of it.
#[derive(Default)]
struct Shares {
    /// Direct deliveries of each user; those of events without a user are counted together.
    direct: HashMap<Option<UserId>, usize>,
    /// The users that have deferred events, or had some when the batch began.
    deferred: HashSet<Option<UserId>>,
}

impl Shares {
    /// Takes up deliveries of a user's event if they may be made directly. If not, this event and the
    /// later ones of the user are to be deferred.
    fn allow(&mut self, user: Option<&UserId>, deliveries: usize) -> bool {
        let user = user.cloned();
        if self.deferred.contains(&user) {
            return false;
        }
        let direct = self.direct.entry(user.clone()).or_default();
        *direct += deliveries;
        let is_allowed = *direct <= DIRECT_OF_USER;
        if !is_allowed {
            self.deferred.insert(user);
        }
        is_allowed
    }
}

fn endpoints<'a>(addressed: impl Iterator<Item = &'a Addressed>) -> BTreeSet<EndpointId> {
    let ids = addressed.flat_map(|addressed| &addressed.to);
    ids.map(|(id, _)| *id).collect()
}

/// The enabled endpoints of the operator that want an event which belongs to no user, due at
/// once.
pub(crate) async fn address_notice(
    store: &dyn Store,
    clock: &Clock,
    event: WebhookEvent,
) -> Result<Option<Addressed>, StoreError> {
    let listeners = Listeners::new(store.audience(&[]).await?.listeners);
    let now = clock.now();
    let accepted = AcceptedEvent {
        event,
        newest_endpoint: AcceptedEvent::EVERY_ENDPOINT,
    };
    Ok(listeners.of(&accepted).map(|to| Addressed {
        event: accepted.event,
        to: to.into_iter().map(|(id, _)| (id, now)).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_bounded_share_of_a_batch_and_stays_in_order() {
        let mut shares = Shares::default();
        let (anna, bo) = (UserId::new("anna").unwrap(), UserId::new("bo").unwrap());
        assert!(shares.allow(Some(&anna), DIRECT_OF_USER));
        assert!(shares.allow(Some(&bo), 1));
        assert!(shares.allow(Some(&anna), 0));
        assert!(!shares.allow(Some(&anna), 1));
        // Not even an event without an endpoint, which may be for a disabled one.
        assert!(!shares.allow(Some(&anna), 0));
        assert!(shares.allow(None, DIRECT_OF_USER));
        assert!(!shares.allow(None, 1));
        assert!(shares.allow(Some(&bo), 1));
    }
}
