//! What a delivery waits for that is due and is not tried: when its lane tries again, and why not before.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use tidings::circuit_breaker::CircuitState;
use tokio::time::Instant;

use super::Shared;
use crate::clock::later;
use crate::store::StoredLane;
use crate::{Delivery, DeliveryState, EndpointId, StoreError};

const OPEN: &str = "the circuit of the endpoint is open because requests failed: then one finds out whether it works again, and others follow if it does";
const PROBED: &str = "the circuit of the endpoint is half-open: requests are sent one after another until it is closed again";
const ASKED: &str = "the endpoint asked for no requests until then (Retry-After)";
const LOCAL: &str = "the server could not send, and tries again then";
const ASKED_OR_LOCAL: &str = "nothing is sent to the endpoint until then: it asked for that (Retry-After), or the server could not send";
const TURN: &str = "it is being sent, or waits for its turn: for earlier ones to the endpoint, for its rate_limit, or until the server has room";

/// From when on a delivery that could be sent is late.
const LATE: Duration = Duration::from_secs(1);

/// What keeps the deliveries of a lane that are due.
enum Wait {
    /// Nothing is sent until then.
    Until(Timestamp, &'static str),
    /// It is not known when the next one is sent.
    Unknown(Cow<'static, str>),
    /// Only others that are sent.
    Turn,
}

/// Who serves a lane.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    This,
    /// Another instance, which may have crashed. Its lease ends then.
    Other(Timestamp),
    None,
}

impl Holder {
    fn of(lane: &StoredLane, own: &str, now: Timestamp) -> Self {
        match (lane.instance.as_deref(), lane.leased_until) {
            (Some(instance), _) if instance == own => Self::This,
            (Some(_), Some(until)) if until > now => Self::Other(until),
            _ => Self::None,
        }
    }
}

fn elsewhere(until: Timestamp) -> String {
    format!(
        "another instance serves the endpoint, and only that one knows when it sends; if it has crashed, others take over at {until:.0}"
    )
}

impl Shared {
    /// Says of deliveries that wait when they are tried at the earliest, as far as that is known, and why not before.
    pub(crate) async fn explain_waits(
        &self,
        deliveries: &mut [Delivery],
    ) -> Result<(), StoreError> {
        let waits = |delivery: &&Delivery| delivery.state == DeliveryState::Pending;
        let endpoints = deliveries.iter().filter(waits).map(|it| it.endpoint_id);
        let endpoints: BTreeSet<_> = endpoints.collect();
        let endpoints: Vec<_> = endpoints.into_iter().collect();
        if endpoints.is_empty() {
            return Ok(());
        }
        let stored = self.store.lanes(&endpoints).await?;
        let now = self.clock.now();
        let waits: HashMap<EndpointId, Wait> = stored
            .into_iter()
            .map(|lane| (lane.endpoint, self.wait_of(&lane, now)))
            .collect();
        for delivery in deliveries {
            let Some(due) = delivery.next_attempt_at else {
                continue;
            };
            let (next, why) = match waits.get(&delivery.endpoint_id).unwrap_or(&Wait::Turn) {
                Wait::Until(until, why) if *until > due => (Some(*until), *why),
                Wait::Unknown(why) if due <= now => (None, &**why),
                Wait::Turn if later(due, LATE) <= now => (Some(due), TURN),
                Wait::Until(..) | Wait::Unknown(_) | Wait::Turn => continue,
            };
            delivery.next_attempt_at = next;
            // An instance has said more about the one that it could not send, if it waits for that still.
            if delivery.reason.is_none() || ![LOCAL, ASKED_OR_LOCAL].contains(&why) {
                delivery.reason = Some(why.to_owned());
            }
        }
        Ok(())
    }

    fn wait_of(&self, lane: &StoredLane, now: Timestamp) -> Wait {
        let endpoint = lane.endpoint;
        let (is_local, here) = {
            let lanes = self.lock();
            let known = lanes.known.get(&endpoint);
            let until = known.and_then(|lane| lane.view().blocked_until);
            (lanes.local.is_probed(endpoint), until)
        };
        let status = self.dispatcher.status(endpoint.to_string());
        let paused = status.as_ref().and_then(|status| status.blocked_until);
        match Holder::of(lane, &self.instance, now) {
            Holder::Other(until) => return Wait::Unknown(elsewhere(until).into()),
            Holder::This => {}
            Holder::None => {
                let why = match lane.next_open_for {
                    Some(_) => OPEN,
                    None if is_local => LOCAL,
                    None if paused.is_some() => ASKED,
                    None => ASKED_OR_LOCAL,
                };
                let until = lane.blocked_until.filter(|until| *until > now);
                return until.map_or(Wait::Turn, |until| Wait::Until(until, why));
            }
        }
        let circuit = match &status {
            Some(status) => status.circuit,
            // It continues with the circuit as another instance has left it.
            None => lane.next_open_for.map(|_| CircuitState::HalfOpen),
        };
        let wait = |until: Instant, why| {
            let wait = until.saturating_duration_since(Instant::now());
            Wait::Until(later(now, wait), why)
        };
        match (circuit, paused, here) {
            (Some(CircuitState::Open), Some(until), _) => wait(until, OPEN),
            (_, Some(until), _) => wait(until, ASKED),
            (_, None, Some(until)) if is_local => wait(until, LOCAL),
            (Some(CircuitState::Open | CircuitState::HalfOpen), None, _) => {
                Wait::Unknown(PROBED.into())
            }
            (_, None, _) => Wait::Turn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_a_lane_whose_lease_has_ended_is_served_by_no_other_instance() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let held = |instance: &str, now| {
            let lane = StoredLane {
                endpoint: EndpointId::from_i64(1),
                instance: Some(instance.to_owned()),
                leased_until: Some(at(30)),
                blocked_until: None,
                next_open_for: None,
            };
            Holder::of(&lane, "own", at(now))
        };
        assert_eq!(held("other", 29), Holder::Other(at(30)));
        assert_eq!(held("other", 30), Holder::None);
        assert_eq!(held("own", 29), Holder::This);
        // It has not learned yet whether another one has it.
        assert_eq!(held("own", 30), Holder::This);
        let said = elsewhere(at(30));
        assert!(said.ends_with("others take over at 1970-01-01T00:00:30Z"));
    }
}
