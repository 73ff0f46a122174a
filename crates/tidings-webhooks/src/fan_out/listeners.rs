//! Which endpoints want an event.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tidings_notify::UserId;

use crate::pattern::any_matches;
use crate::store::{AcceptedEvent, Listener};
use crate::{EndpointId, EventPattern, Owner, WebhookEvent};

/// Endpoints by their owner, with their patterns.
#[derive(Debug)]
pub(super) struct Listeners {
    of_operator: Vec<Subscriber>,
    of_users: HashMap<UserId, Vec<Subscriber>>,
}

#[derive(Debug)]
struct Subscriber {
    id: EndpointId,
    number: u64,
    /// `None` when they cannot be read: then a delivery is made, which fails with that reason.
    patterns: Option<Vec<EventPattern>>,
    first_wait: Option<Duration>,
    is_enabled: bool,
}

impl Listeners {
    pub(super) fn new(listeners: Vec<Listener>) -> Self {
        let mut of_operator = Vec::new();
        let mut of_users: HashMap<UserId, Vec<Subscriber>> = HashMap::new();
        for listener in listeners {
            let subscriber = Subscriber {
                id: listener.id,
                number: listener.number,
                patterns: serde_json::from_str(&listener.event_types).ok(),
                first_wait: listener.first_wait,
                is_enabled: listener.enabled,
            };
            match listener.owner {
                Owner::Operator => of_operator.push(subscriber),
                Owner::User(user) => of_users.entry(user).or_default().push(subscriber),
            }
        }
        Self {
            of_operator,
            of_users,
        }
    }

    /// The enabled endpoints that want an event, with their first waits. `None` if no endpoint wants
    /// it; empty if only disabled ones do, for which the event is kept to be replayed.
    pub(super) fn of(
        &self,
        accepted: &AcceptedEvent,
    ) -> Option<Vec<(EndpointId, Option<Duration>)>> {
        let event = &accepted.event;
        let of_user = event.user().and_then(|user| self.of_users.get(user));
        let all = self.of_operator.iter().chain(of_user.into_iter().flatten());
        let mut is_wanted = false;
        let mut to = Vec::new();
        for subscriber in all.filter(|it| it.number <= accepted.newest_endpoint) {
            let patterns = subscriber.patterns.as_deref();
            if patterns.is_none_or(|patterns| any_matches(patterns, event.event_type())) {
                is_wanted = true;
                if subscriber.is_enabled {
                    to.push((subscriber.id, subscriber.first_wait));
                }
            }
        }
        is_wanted.then_some(to)
    }
}

/// The users of events, each once.
pub(super) fn users<'a>(events: impl Iterator<Item = &'a WebhookEvent>) -> Vec<UserId> {
    let users: BTreeSet<&UserId> = events.filter_map(WebhookEvent::user).collect();
    users.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_notify::{EventType, Payload};

    fn listener(number: u64, owner: Owner, event_types: &str) -> Listener {
        Listener {
            id: EndpointId::from_i64(number.cast_signed()),
            number,
            owner,
            event_types: event_types.to_owned(),
            first_wait: None,
            enabled: true,
        }
    }

    fn event() -> WebhookEvent {
        let payload = Payload::parse("{}").unwrap();
        WebhookEvent::new(&EventType::new("order.paid").unwrap(), payload)
    }

    fn ids(listeners: &Listeners, event: &WebhookEvent, newest_endpoint: u64) -> Option<Vec<i64>> {
        let accepted = AcceptedEvent {
            event: event.clone(),
            newest_endpoint,
        };
        let to = listeners.of(&accepted)?;
        Some(to.into_iter().map(|(id, _)| id.as_i64()).collect())
    }

    #[test]
    fn an_event_goes_to_the_endpoints_that_want_it_and_is_kept_for_disabled_ones() {
        let anna = UserId::new("anna").unwrap();
        let of_anna = Owner::User(anna.clone());
        let listeners = Listeners::new(vec![
            listener(1, Owner::Operator, "[]"),
            listener(2, of_anna.clone(), r#"["order.*"]"#),
            listener(3, of_anna.clone(), r#"["invoice.*"]"#),
            listener(4, of_anna, "broken"),
        ]);
        assert_eq!(ids(&listeners, &event(), 9), Some(vec![1]));
        let of_anna = event().with_user(anna);
        assert_eq!(ids(&listeners, &of_anna, 9), Some(vec![1, 2, 4]));
        let own = WebhookEvent::of_type("tidings.test".into(), Payload::parse("{}").unwrap());
        assert_eq!(ids(&listeners, &own, 9), None);

        let disabled = Listener {
            enabled: false,
            ..listener(1, Owner::Operator, "[]")
        };
        let listeners = Listeners::new(vec![disabled]);
        assert_eq!(ids(&listeners, &event(), 9), Some(vec![]));
    }

    #[test]
    fn an_endpoint_made_after_the_acceptance_does_not_get_the_event() {
        let listeners = Listeners::new(vec![
            listener(1, Owner::Operator, "[]"),
            listener(2, Owner::Operator, "[]"),
        ]);
        assert_eq!(ids(&listeners, &event(), 1), Some(vec![1]));
        assert_eq!(ids(&listeners, &event(), 0), None);
    }
}
