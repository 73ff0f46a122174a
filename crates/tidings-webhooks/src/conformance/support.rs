//! What the behaviours are tested with.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidings_notify::{EventType, Payload, UserId};

use crate::store::{
    Addressed, AfterAttempt, Disabled, DueDelivery, LaneQuery, LaneWork, LeaseRequest, Outcome,
    Released, StoredEndpoint,
};
use crate::{
    AttemptRecord, Delivery, DeliveryId, DeliveryQuery, DeliveryState, EndpointId, Owner, Store,
    WebhookEvent,
};

/// Two handles of one store, as two instances have them.
#[derive(Debug, Clone)]
pub struct Stores {
    /// One of them.
    pub a: Arc<dyn Store>,
    /// The other.
    pub b: Arc<dyn Store>,
}

/// A moment, counted in seconds from the one at which every test begins.
pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub(super) fn id(number: i64) -> EndpointId {
    EndpointId::from_i64(number)
}

pub(super) fn user(name: &str) -> Owner {
    Owner::User(UserId::new(name).unwrap())
}

pub(super) fn endpoint(number: i64, owner: &Owner) -> StoredEndpoint {
    StoredEndpoint {
        id: id(number),
        owner: owner.clone(),
        settings: format!(r#"{{"url":"https://example.com/{number}"}}"#),
        event_types: r#"["order.*"]"#.to_owned(),
        secrets: "[]".to_owned(),
        first_wait: None,
        disabled: None,
        removed: false,
        revision: 1,
        created_at: at(number),
    }
}

pub(super) fn disabled(mut endpoint: StoredEndpoint) -> StoredEndpoint {
    endpoint.disabled = Some(Disabled {
        because: "it is gone".to_owned(),
    });
    endpoint
}

pub(super) fn event(name: &str) -> WebhookEvent {
    let payload = Payload::parse(r#"{"n": 1}"#).unwrap();
    WebhookEvent::new(&EventType::new("order.paid").unwrap(), payload)
        .with_timestamp(at(0))
        .with_id(name)
        .unwrap()
}

/// An endpoint of the operator in the store.
pub(super) async fn operator(store: &dyn Store, number: i64) -> EndpointId {
    let endpoint = endpoint(number, &Owner::Operator);
    store.insert_endpoint(endpoint, None, None).await.unwrap();
    id(number)
}

/// Adds events to an endpoint, due at a time.
pub(super) async fn add(store: &dyn Store, names: &[&str], to: EndpointId, due: Timestamp) {
    let addressed = names.iter().map(|name| Addressed {
        event: event(name),
        to: vec![(to, due)],
    });
    store
        .add_deliveries(addressed.collect(), at(0))
        .await
        .unwrap();
}

pub(super) fn query(endpoint: EndpointId, now: Timestamp) -> LaneQuery {
    LaneQuery {
        endpoint,
        now,
        held: Vec::new(),
        limit: 100,
        max_bytes: 1 << 20,
    }
}

pub(super) async fn work(store: &dyn Store, endpoint: EndpointId, now: Timestamp) -> LaneWork {
    store.lane_work(query(endpoint, now)).await.unwrap()
}

pub(super) fn names(due: &[DueDelivery]) -> Vec<String> {
    let name = |due: &DueDelivery| due.event.as_ref().unwrap().id().to_owned();
    due.iter().map(name).collect()
}

/// The ids of the deliveries to an endpoint, by the order of their making.
pub(super) async fn made(store: &dyn Store, endpoint: EndpointId) -> Vec<DeliveryId> {
    let newest = DeliveryQuery::newest(1000).to(endpoint);
    let mut found = store.deliveries(&newest).await.unwrap();
    found.reverse();
    found.iter().map(|delivery| delivery.id).collect()
}

pub(super) async fn delivery(store: &dyn Store, id: DeliveryId) -> Delivery {
    store.delivery(id).await.unwrap().unwrap()
}

pub(super) async fn lease(store: &dyn Store, instance: &str, now: Timestamp) -> Vec<EndpointId> {
    let leased = store.lease_lanes(ask(instance, now)).await.unwrap();
    let mut lanes: Vec<_> = leased.lanes.iter().map(|lane| lane.endpoint).collect();
    lanes.sort();
    lanes
}

/// Leases lanes, and returns each with the seconds for which its circuit opens next.
pub(super) async fn circuits(
    store: &dyn Store,
    instance: &str,
    now: Timestamp,
) -> Vec<(EndpointId, Option<u64>)> {
    let leased = store.lease_lanes(ask(instance, now)).await.unwrap();
    let seconds = |open_for: Duration| open_for.as_secs();
    let lanes = leased.lanes.iter();
    lanes
        .map(|lane| (lane.endpoint, lane.next_open_for.map(seconds)))
        .collect()
}

/// Gives a lane back with a circuit that is open until a time, and next for so many seconds.
pub(super) async fn release_open(
    store: &dyn Store,
    instance: &str,
    endpoint: EndpointId,
    until: Timestamp,
    next: u64,
) -> Option<Timestamp> {
    let released = Released {
        endpoint,
        blocked_until: Some(until),
        next_open_for: Some(Duration::from_secs(next)),
    };
    store.release_lanes(instance, vec![released]).await.unwrap()
}

/// Asks for lanes, for thirty seconds.
pub(super) fn ask(instance: &str, now: Timestamp) -> LeaseRequest {
    LeaseRequest {
        instance: instance.to_owned(),
        now,
        until: now.checked_add(Duration::from_secs(30)).unwrap(),
        limit: 100,
    }
}

pub(super) async fn release(
    store: &dyn Store,
    instance: &str,
    endpoint: EndpointId,
    blocked_until: Option<Timestamp>,
) -> Option<Timestamp> {
    let released = Released {
        endpoint,
        blocked_until,
        next_open_for: None,
    };
    store.release_lanes(instance, vec![released]).await.unwrap()
}

pub(super) fn attempt(number: u32) -> AttemptRecord {
    AttemptRecord::new(number, at(number.into()), Duration::from_millis(20)).with_status(200)
}

pub(super) fn finish(state: DeliveryState) -> AfterAttempt {
    AfterAttempt::Finish {
        state,
        reason: None,
    }
}

/// The outcome of an attempt of a delivery that was due at the beginning.
pub(super) fn outcome(
    delivery: DeliveryId,
    endpoint: EndpointId,
    number: u32,
    next: AfterAttempt,
) -> Outcome {
    Outcome {
        delivery,
        endpoint,
        was_due_at: at(0),
        attempt: Some(attempt(number)),
        is_local: false,
        next,
        waits_because: None,
    }
}

/// Records one outcome, ten seconds after the beginning.
pub(super) async fn record(store: &dyn Store, outcome: Outcome) {
    store.record(vec![outcome], at(10), at(10)).await.unwrap();
}
