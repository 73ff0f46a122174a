//! From accepted events to deliveries.
//!
//! Accepting an event writes one message to a durable stream, in the transaction of the caller that accepts
//! it. A consumer group works through that stream: it finds out which endpoints want each event, and
//! stores the event, once, with a delivery for each of them. A message that comes again after a crash
//! makes no second delivery, because an event and an endpoint have one.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tidings_notify::UserId;
use tidings_stream::{BatchError, HandlerError, Message, NewMessage};

use crate::clock::{Clock, later};
use crate::pattern::any_matches;
use crate::store::{Addressed, Listener};
use crate::{EndpointId, EventPattern, Store, StoreError, WebhookEvent, telemetry};

/// The short name of the stream of accepted events.
pub const STREAM: &str = "webhook-events";

/// The consumer group that makes deliveries of them.
pub(crate) const GROUP: &str = "fan-out";

/// Most events, and bytes of JSON, of one message of the stream, except for a larger single event.
const EVENTS_PER_MESSAGE: usize = 256;
const BYTES_PER_MESSAGE: usize = 256 << 10;

/// Most events, and deliveries, that one transaction stores.
const EVENTS_PER_STEP: usize = 512;
const DELIVERIES_PER_STEP: usize = 1000;

/// What is published for these events.
pub(crate) fn messages(events: &[WebhookEvent]) -> Result<Vec<NewMessage>, serde_json::Error> {
    let mut messages = Vec::new();
    let mut json = String::from("[");
    let mut count = 0;
    for event in events {
        let event = serde_json::to_string(event)?;
        if count == EVENTS_PER_MESSAGE
            || (count > 0 && json.len() + event.len() > BYTES_PER_MESSAGE)
        {
            json.push(']');
            messages.push(NewMessage::new(std::mem::replace(
                &mut json,
                "[".to_owned(),
            )));
            count = 0;
        }
        if count > 0 {
            json.push(',');
        }
        json.push_str(&event);
        count += 1;
    }
    if count > 0 {
        json.push(']');
        messages.push(NewMessage::new(json));
    }
    Ok(messages)
}

/// The failure of a stream in a transaction that a store has a part in.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn stream_failure(error: tidings_stream::Error) -> StoreError {
    match error {
        tidings_stream::Error::Closed => StoreError::Closed,
        tidings_stream::Error::Full(source) => StoreError::Full(source),
        other => StoreError::backend(other),
    }
}

/// Makes the deliveries of a batch of messages. Returns the endpoints that have work now.
pub(crate) async fn fan_out(
    store: &dyn Store,
    clock: &Clock,
    default_wait: Duration,
    messages: Vec<Message>,
) -> Result<BTreeSet<EndpointId>, BatchError> {
    let mut unreadable = BatchError::none();
    let mut events: Vec<WebhookEvent> = Vec::with_capacity(messages.len());
    for message in &messages {
        match serde_json::from_slice::<Vec<WebhookEvent>>(&message.payload) {
            Ok(read) => events.extend(read),
            Err(error) => unreadable.push(message.id, HandlerError::skip_retry(error)),
        }
    }
    let mut endpoints = BTreeSet::new();
    while !events.is_empty() {
        let rest = events.split_off(events.len().min(EVENTS_PER_STEP));
        let step = std::mem::replace(&mut events, rest);
        let added = add(store, clock, default_wait, step).await;
        endpoints.extend(added.map_err(HandlerError::retry)?);
    }
    unreadable.into_result()?;
    Ok(endpoints)
}

async fn add(
    store: &dyn Store,
    clock: &Clock,
    default_wait: Duration,
    events: Vec<WebhookEvent>,
) -> Result<BTreeSet<EndpointId>, StoreError> {
    let users: BTreeSet<&UserId> = events.iter().filter_map(WebhookEvent::user).collect();
    let users: Vec<UserId> = users.into_iter().cloned().collect();
    let listeners = Listeners::new(store.listeners(&users).await?);
    let now = clock.now();
    let at = clock.wall.now();
    let mut endpoints = BTreeSet::new();
    let mut step: Vec<Addressed> = Vec::new();
    let mut size = 0;
    for event in events {
        let Some(to) = listeners.of(&event) else {
            continue;
        };
        let due = |wait: Option<Duration>| later(now, wait.unwrap_or(default_wait));
        let to: Vec<_> = to.into_iter().map(|(id, wait)| (id, due(wait))).collect();
        endpoints.extend(to.iter().map(|(id, _)| *id));
        let mut parts = to.chunks(DELIVERIES_PER_STEP).map(<[_]>::to_vec);
        let mut part = parts.next().unwrap_or_default();
        loop {
            size += part.len();
            step.push(Addressed {
                event: event.clone(),
                to: part,
            });
            if size >= DELIVERIES_PER_STEP {
                telemetry::deliveries_added(size);
                store.add_deliveries(std::mem::take(&mut step), at).await?;
                size = 0;
            }
            let Some(next) = parts.next() else { break };
            part = next;
        }
    }
    if !step.is_empty() {
        telemetry::deliveries_added(size);
        store.add_deliveries(step, at).await?;
    }
    Ok(endpoints)
}

/// Endpoints by their owner, with their patterns.
struct Listeners {
    of_operator: Vec<Wish>,
    of_users: HashMap<UserId, Vec<Wish>>,
}

struct Wish {
    id: EndpointId,
    /// `None` when they cannot be read: then a delivery is made, which fails and says so.
    patterns: Option<Vec<EventPattern>>,
    first_wait: Option<Duration>,
    enabled: bool,
}

impl Listeners {
    fn new(listeners: Vec<Listener>) -> Self {
        let mut of_operator = Vec::new();
        let mut of_users: HashMap<UserId, Vec<Wish>> = HashMap::new();
        for listener in listeners {
            let wish = Wish {
                id: listener.id,
                patterns: serde_json::from_str(&listener.event_types).ok(),
                first_wait: listener.first_wait,
                enabled: listener.enabled,
            };
            match listener.owner {
                crate::Owner::Operator => of_operator.push(wish),
                crate::Owner::User(user) => of_users.entry(user).or_default().push(wish),
            }
        }
        Self {
            of_operator,
            of_users,
        }
    }

    /// The enabled endpoints that want an event, with their first waits. `None` when none wants it;
    /// empty when only disabled ones do, for which the event is kept to be replayed.
    fn of(&self, event: &WebhookEvent) -> Option<Vec<(EndpointId, Option<Duration>)>> {
        let of_user = event.user().and_then(|user| self.of_users.get(user));
        let all = self.of_operator.iter().chain(of_user.into_iter().flatten());
        let mut is_wanted = false;
        let mut to = Vec::new();
        for wish in all {
            let patterns = wish.patterns.as_deref();
            if patterns.is_none_or(|patterns| any_matches(patterns, event.event_type())) {
                is_wanted = true;
                if wish.enabled {
                    to.push((wish.id, wish.first_wait));
                }
            }
        }
        is_wanted.then_some(to)
    }
}

/// The enabled endpoints of the operator that want an event which belongs to no user, due at
/// once.
pub(crate) async fn address_notice(
    store: &dyn Store,
    clock: &Clock,
    event: WebhookEvent,
) -> Result<Option<Addressed>, StoreError> {
    let listeners = Listeners::new(store.listeners(&[]).await?);
    let now = clock.now();
    Ok(listeners.of(&event).map(|to| Addressed {
        event,
        to: to.into_iter().map(|(id, _)| (id, now)).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_notify::{EventType, Payload};

    fn event(bytes: usize) -> WebhookEvent {
        let payload = Payload::from_value(&"x".repeat(bytes)).unwrap();
        WebhookEvent::new(&EventType::new("order.paid").unwrap(), payload)
    }

    fn read(messages: &[NewMessage]) -> Vec<Vec<WebhookEvent>> {
        let read = |message: &NewMessage| serde_json::from_slice(message.payload()).unwrap();
        messages.iter().map(read).collect()
    }

    #[test]
    fn events_are_published_in_order_in_messages_of_bounded_size() {
        let events: Vec<_> = (0..600).map(|_| event(10)).collect();
        let messages = read(&messages(&events).unwrap());
        assert_eq!(messages.len(), 3);
        assert_eq!(messages.concat(), events);

        let events: Vec<_> = (0..3).map(|_| event(200_000)).collect();
        let messages = super::messages(&events).unwrap();
        assert_eq!(messages.len(), 3);
        assert_eq!(read(&messages).concat(), events);
        assert!(super::messages(&[]).unwrap().is_empty());
    }

    #[test]
    fn an_event_goes_to_whoever_wants_it_and_is_kept_for_who_is_disabled() {
        let listener = |id, owner, event_types: &str, enabled| Listener {
            id: EndpointId::from_i64(id),
            owner,
            event_types: event_types.to_owned(),
            first_wait: None,
            enabled,
        };
        let anna = UserId::new("anna").unwrap();
        let of_anna = crate::Owner::User(anna.clone());
        let listeners = Listeners::new(vec![
            listener(1, crate::Owner::Operator, "[]", true),
            listener(2, of_anna.clone(), r#"["order.*"]"#, true),
            listener(3, of_anna.clone(), r#"["invoice.*"]"#, true),
            listener(4, of_anna, "broken", true),
        ]);
        let ids = |event: &WebhookEvent| -> Option<Vec<i64>> {
            let to = listeners.of(event)?;
            Some(to.into_iter().map(|(id, _)| id.as_i64()).collect())
        };
        assert_eq!(ids(&event(1)), Some(vec![1]));
        assert_eq!(ids(&event(1).with_user(anna)), Some(vec![1, 2, 4]));
        let own = WebhookEvent::of_type("tidings.test".into(), Payload::parse("{}").unwrap());
        assert_eq!(ids(&own), None);

        let disabled = listener(1, crate::Owner::Operator, "[]", false);
        assert_eq!(Listeners::new(vec![disabled]).of(&event(1)), Some(vec![]));
    }
}
