//! Where endpoints, events, deliveries and lanes are kept: the operations, on plain data.

use std::collections::HashSet;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tidings_notify::UserId;

pub use crate::health::StoredHealth;
use crate::{
    AttemptRecord, Delivery, DeliveryId, DeliveryQuery, DeliveryState, EndpointId, Owner,
    StoreError, WebhookEvent,
};

/// Keeps endpoints, the events that they get, the deliveries of those, and the lanes.
///
/// # Contract
///
/// - **All or nothing.** A call has its whole effect or none, also when its future is dropped.
/// - **Read your writes.** A call that begins after a write has returned sees that write, on every
///   handle of every instance.
/// - **Bounded steps.** No call changes more rows than its limit, or its arguments, allow.
/// - **One delivery for an event and an endpoint**, also if it is added again.
/// - **Deferred events keep their order.** They are listed in the order in which they were put aside.
/// - **Pending work has a lane.** An endpoint with a pending delivery, or with a replay, has a
///   lane row, which says when there is something to do. Of all handles, one at a time has the lease
///   of a lane, until it releases it or the lease ends.
/// - **An outcome changes a pending delivery only.** The attempt is recorded in any case.
/// - **Outcomes are recorded once.** The same outcomes in another call, as after a reply that was lost, change
///   nothing.
/// - **Times.** Those called `now` or `due` are of the clock of what is due, which the caller has;
///   those called `at` are of the wall. A store reads no clock.
/// - **Durability.** Changes of endpoints survive a loss of power. Deliveries, leases and outcomes
///   survive a crash of the process; what a loss of power undoes of them is made again. What messages ask for is on
///   disk before they are [acknowledged elsewhere](Self::acknowledged_in).
///
/// The functions of `conformance` (feature `conformance`) test a store against this.
#[async_trait]
pub trait Store: Debug + Send + Sync + 'static {
    /// Moves the store's own record of the clock forward to `now`, never back, and returns it.
    async fn advance_clock(&self, now: Timestamp) -> Result<Timestamp, StoreError>;

    /// Adds an endpoint, unless its owner has `limit` of them.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooManyEndpoints`].
    async fn insert_endpoint(
        &self,
        endpoint: StoredEndpoint,
        limit: Option<usize>,
        notice: Option<Notice>,
    ) -> Result<(), StoreError>;

    /// Replaces an endpoint if it still has the revision that the new one names, and gives it the
    /// next. Returns whether it did. One that is disabled or removed has no replay any more, and its lane is
    /// due at `now`, so that its deliveries get cancelled.
    async fn replace_endpoint(
        &self,
        endpoint: StoredEndpoint,
        now: Timestamp,
        notice: Option<Notice>,
    ) -> Result<bool, StoreError>;

    /// Finds an endpoint that is not removed.
    async fn endpoint(&self, id: EndpointId) -> Result<Option<StoredEndpoint>, StoreError>;

    /// The endpoints of an owner that are not removed, the oldest first.
    async fn endpoints(&self, owner: &Owner) -> Result<Vec<StoredEndpoint>, StoreError>;

    /// The secrets of all endpoints, removed ones too, in the order of their ids: those after one, at most
    /// `limit`.
    async fn secrets(
        &self,
        after: Option<EndpointId>,
        limit: usize,
    ) -> Result<Vec<StoredSecrets>, StoreError>;

    /// Replaces the secrets of endpoints that still have the revision that is named, and gives these the next.
    /// What was stored before is overwritten as far as the store can.
    async fn replace_secrets(&self, secrets: Vec<StoredSecrets>) -> Result<(), StoreError>;

    /// The health of an endpoint.
    async fn health(&self, id: EndpointId) -> Result<StoredHealth, StoreError>;

    /// The number of the newest endpoint of all, if the operator or one of these users has an endpoint
    /// that is not removed. Numbers rise in the order in which endpoints are made.
    async fn newest_endpoint_if_wanted(&self, users: &[UserId]) -> Result<Option<u64>, StoreError>;

    /// Which endpoints may want events of these users, and what of these users is deferred.
    async fn audience(&self, users: &[UserId]) -> Result<Audience, StoreError>;

    /// Stores events, and a pending delivery for each of their addresses, in this order. Repeated
    /// events and deliveries are left as they are.
    ///
    /// On return they survive a crash of the store: the caller acknowledges the message that named them,
    /// maybe only after the store is there again.
    async fn add_deliveries(
        &self,
        events: Arc<[Addressed]>,
        at: Timestamp,
    ) -> Result<Added, StoreError>;

    /// Puts events aside, in this order, until their deliveries are made. What is put aside already is
    /// left as it is. On return they survive a crash of the store, as with
    /// [`add_deliveries`](Self::add_deliveries).
    async fn defer(&self, events: Vec<AcceptedEvent>) -> Result<(), StoreError>;

    /// The deferred events that were put aside first, in order: at most `limit`, and after the first at
    /// most `max_bytes` of them.
    async fn deferred(
        &self,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<DeferredEvent>, StoreError>;

    /// Ends the deferral of events, and stores them with their deliveries as
    /// [`add_deliveries`](Self::add_deliveries) does; those without an address are forgotten. Returns
    /// how many deliveries are new; `None` if not all of the events were deferred, and nothing changes.
    async fn add_deferred(
        &self,
        events: Vec<(i64, Option<Addressed>)>,
        at: Timestamp,
    ) -> Result<Option<usize>, StoreError>;

    /// Says in which file messages are acknowledged whose events are given to [`add_deliveries`](Self::add_deliveries)
    /// and [`defer`](Self::defer); `None` if in none that a store may share. [`Webhooks::start`](crate::Webhooks::start)
    /// calls it first. A store that loses its newest commits in a crash, in their order, need not wait for the disk if
    /// the acknowledgements are lost with them. If it was called with several files, or never, what it is given has to
    /// outlast all of them. By default nothing follows.
    fn acknowledged_in(&self, file: Option<&Path>) {
        let _ = file;
    }

    /// Makes an instance the one that makes deliveries of accepted events, or keeps it so, until a time.
    /// Returns `false` while another instance is.
    async fn lead(&self, lead: LeadRequest) -> Result<bool, StoreError>;

    /// Ends the lead of an instance at once.
    async fn resign(&self, instance: &str) -> Result<(), StoreError>;

    /// Leases lanes that are due and not leased, the earliest first. The circuit of a lane stays as it was given back
    /// until it is given back again, also for another instance if the lease ends by its time; a change of the endpoint, or
    /// the retry of a delivery, closes it.
    async fn lease_lanes(&self, lease: LeaseRequest) -> Result<Leased, StoreError>;

    /// Renews all leases of an instance, and returns their endpoints, each with its revision. The circuit of a
    /// lane is forgotten if its block ends more than ten minutes before `until`: it was probed since.
    async fn renew_lanes(
        &self,
        instance: &str,
        until: Timestamp,
    ) -> Result<Vec<(EndpointId, u64)>, StoreError>;

    /// Gives lanes back: they are due when their next delivery or replay step is, and not before
    /// their `blocked_until`. Lanes without work and without a block go. Returns when the next of these is due.
    async fn release_lanes(
        &self,
        instance: &str,
        lanes: Vec<Released>,
    ) -> Result<Option<Timestamp>, StoreError>;

    /// What there is to do in a lane: deliveries that are due at `now`, in order, without those in
    /// `held`; at most `limit`, and after the first at most `max_bytes` of payloads.
    async fn lane_work(&self, query: LaneQuery) -> Result<LaneWork, StoreError>;

    /// Who has the lanes of these endpoints, and what keeps them from sending. In any order, without those that have no
    /// lane.
    async fn lanes(&self, endpoints: &[EndpointId]) -> Result<Vec<StoredLane>, StoreError>;

    /// When something is due in each of these lanes, in their order, by all that is stored.
    async fn next_due(&self, endpoints: &[EndpointId]) -> Result<Vec<NextDue>, StoreError>;

    /// Records attempts and what follows from them. `now` is when, `at` is the same by the wall clock.
    /// Returns for each endpoint since when it has been failing, if it has.
    async fn record(
        &self,
        outcomes: Vec<Outcome>,
        now: Timestamp,
        at: Timestamp,
    ) -> Result<Vec<(EndpointId, Option<Timestamp>)>, StoreError>;

    /// Cancels at most `limit` pending deliveries of an endpoint that is disabled or removed, and ends a replay
    /// that was begun at the same moment. Returns how many it cancelled.
    async fn cancel_deliveries(
        &self,
        endpoint: EndpointId,
        because: &str,
        at: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError>;

    /// Finds a delivery. Its `next_attempt_at` is of the clock of what is due.
    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError>;

    /// Lists deliveries, the newest first. Their `next_attempt_at` are of the clock of what is due.
    async fn deliveries(&self, query: &DeliveryQuery) -> Result<Vec<Delivery>, StoreError>;

    /// The attempts of a delivery, in order; `None` when there is no such delivery.
    async fn attempts(&self, id: DeliveryId) -> Result<Option<Vec<AttemptRecord>>, StoreError>;

    /// The event of a delivery, and its endpoint; `None` when there is no such delivery, or its event is lost.
    async fn sent_event(&self, id: DeliveryId) -> Result<Option<SentEvent>, StoreError>;

    /// How many deliveries wait, and deferred events, each counted up to
    /// [`MAX_COUNTED`](crate::MAX_COUNTED).
    async fn count_pending(&self) -> Result<u64, StoreError>;

    /// Makes a delivery due at `now`, at the beginning of its schedule, in any state, if its endpoint is
    /// enabled. Returns the endpoint.
    async fn retry_delivery(
        &self,
        id: DeliveryId,
        now: Timestamp,
    ) -> Result<Option<EndpointId>, StoreError>;

    /// Begins to replay, in place of an earlier replay of the endpoint. Returns whether there is such
    /// an endpoint and it is enabled.
    async fn start_replay(&self, replay: NewReplay, now: Timestamp) -> Result<bool, StoreError>;

    /// Ends the replay of an endpoint. Deliveries that it has made stay due. Returns whether one was under way.
    async fn stop_replay(&self, endpoint: EndpointId) -> Result<bool, StoreError>;

    /// The next events of a replay, at most `limit`, if one is under way.
    async fn replay_page(
        &self,
        endpoint: EndpointId,
        limit: usize,
    ) -> Result<Option<ReplayPage>, StoreError>;

    /// Makes deliveries of replayed events due, each at its time: new ones, and those that failed or
    /// were cancelled. Moves the replay on to `cursor`, and ends it when there is none. Does nothing
    /// unless the replay still stands where `from` and `due` say.
    async fn replay(&self, step: ReplayStep, at: Timestamp) -> Result<(), StoreError>;

    /// Deletes deliveries that ended before `cutoff`, with their attempts, and events that were
    /// accepted before it and have no delivery: at most `limit` of each. Returns how many.
    async fn clean(&self, cutoff: Timestamp, limit: usize) -> Result<usize, StoreError>;

    /// Refuses all later calls on this handle. Closing twice is harmless.
    async fn close(&self);
}

/// An endpoint as a store keeps it. What only its owner and the sender read is opaque to the store,
/// so that its reader finds out that it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEndpoint {
    /// Its name.
    pub id: EndpointId,
    /// Who it belongs to.
    pub owner: Owner,
    /// Its settings as JSON, without the event types.
    pub settings: String,
    /// The patterns of its event types, a JSON array.
    pub event_types: String,
    /// Its secrets.
    pub secrets: String,
    /// The wait before the first attempt, if it has a schedule of its own.
    pub first_wait: Option<Duration>,
    /// Why it is disabled, if it is.
    pub disabled: Option<Disabled>,
    /// Whether it is removed.
    pub removed: bool,
    /// Rises with every change.
    pub revision: u64,
    /// When it was made, by the wall clock.
    pub created_at: Timestamp,
}

/// The secrets of an endpoint as a store keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSecrets {
    /// Its name.
    pub endpoint: EndpointId,
    /// Its revision.
    pub revision: u64,
    /// Its secrets.
    pub secrets: String,
}

/// Why an endpoint is disabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disabled {
    /// In words for a person.
    pub because: String,
}

/// An event about a change of an endpoint, stored together with the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The event, and who gets it.
    pub addressed: Addressed,
    /// When, by the wall clock.
    pub at: Timestamp,
}

/// Which endpoints may want the events of some users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    /// The endpoints of the operator and of these users that are not removed.
    pub listeners: Vec<Listener>,
    /// Those of these users that have deferred events; `None` if events of no user are deferred.
    pub deferred: HashSet<Option<UserId>>,
}

/// An endpoint that may want an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name.
    pub id: EndpointId,
    /// Its number: later ones were made later.
    pub number: u64,
    /// Who it belongs to.
    pub owner: Owner,
    /// The patterns of its event types, a JSON array.
    pub event_types: String,
    /// The wait before the first attempt, if it has a schedule of its own.
    pub first_wait: Option<Duration>,
    /// Whether it gets deliveries.
    pub enabled: bool,
}

/// An event as it was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedEvent {
    /// The event.
    pub event: WebhookEvent,
    /// The number of the newest endpoint at that time: later ones do not get the event.
    pub newest_endpoint: u64,
}

/// An event as a delivery brings it to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentEvent {
    /// Where it goes.
    pub endpoint: EndpointId,
    /// The event.
    pub event: WebhookEvent,
}

/// An event whose deliveries are made later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeferredEvent {
    /// Its place in the order.
    pub number: i64,
    /// The event, or why it cannot be read.
    pub event: Result<AcceptedEvent, String>,
}

/// An event, and the endpoints that get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressed {
    /// The event.
    pub event: WebhookEvent,
    /// Each endpoint, and when its first attempt is due.
    pub to: Vec<(EndpointId, Timestamp)>,
}

/// What became of [addressed](Addressed) events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Added {
    /// The delivery for each address, in order; `None` for one that was there, or whose event was, which
    /// may be stored with other contents.
    pub deliveries: Vec<Option<DeliveryId>>,
    /// How many deliveries are new, also of events that were there.
    pub count: usize,
}

/// Asks for lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRequest {
    /// Who asks: a name that no other instance has.
    pub instance: String,
    /// When.
    pub now: Timestamp,
    /// When the leases end.
    pub until: Timestamp,
    /// At most so many. With 0, the store only tells when the next is due.
    pub limit: usize,
}

/// Asks for the lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeadRequest {
    /// Who asks: a name that no other instance has.
    pub instance: String,
    /// When.
    pub now: Timestamp,
    /// When the lead ends, unless it is asked for again.
    pub until: Timestamp,
}

/// The lanes that were leased.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leased {
    /// The lanes.
    pub lanes: Vec<LeasedLane>,
    /// When the next lane without a lease is due, or the next lease of another instance ends. In
    /// the past when the limit cut the list short.
    pub next_due: Option<Timestamp>,
}

/// A lane that was leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeasedLane {
    /// Its endpoint.
    pub endpoint: EndpointId,
    /// For how long its circuit opens if its next probe fails, as its last holder has said; `None` if the circuit was
    /// closed, or was closed by a change since.
    pub next_open_for: Option<Duration>,
}

/// A lane as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLane {
    /// Its endpoint.
    pub endpoint: EndpointId,
    /// The instance that has its lease, or had it last if that has ended.
    pub instance: Option<String>,
    /// When the lease of that instance ends, or has ended.
    pub leased_until: Option<Timestamp>,
    /// Until when the endpoint gets no requests, as its last holder has said that gave it back.
    pub blocked_until: Option<Timestamp>,
    /// For how long its circuit opens if its next probe fails, as that one has said; `None` if it was closed.
    pub next_open_for: Option<Duration>,
}

/// A lane that is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// Its endpoint.
    pub endpoint: EndpointId,
    /// Until when the endpoint gets no requests, if it is not to get any for a while.
    pub blocked_until: Option<Timestamp>,
    /// For how long its circuit opens if its next probe fails; `None` if it is closed.
    pub next_open_for: Option<Duration>,
}

/// Asks what there is to do in a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneQuery {
    /// Its endpoint.
    pub endpoint: EndpointId,
    /// When.
    pub now: Timestamp,
    /// Deliveries that the caller has already.
    pub held: Vec<DeliveryId>,
    /// At most so many deliveries.
    pub limit: usize,
    /// After the first, at most so many bytes of payloads.
    pub max_bytes: usize,
}

/// What there is to do in a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneWork {
    /// The endpoint, removed ones too; `None` when it is not known at all.
    pub endpoint: Option<StoredEndpoint>,
    /// What is due, in order.
    pub due: Vec<DueDelivery>,
    /// When the next delivery after these is due, if one is pending; in the past when the limit cut
    /// the list short.
    pub next_due: Option<Timestamp>,
    /// When the next step of a replay is due, if one is under way.
    pub replay_due: Option<Timestamp>,
}

/// When something is due in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextDue {
    /// The revision of its endpoint, removed ones too; 0 when it is not known at all.
    pub revision: u64,
    /// When the first pending delivery or step of a replay is due, if there is one.
    pub due: Option<Timestamp>,
}

/// A delivery that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueDelivery {
    /// Its name.
    pub id: DeliveryId,
    /// How many attempts were made in all.
    pub attempts: u32,
    /// How many were made since it was last begun, which is where its schedule stands.
    pub tries: u32,
    /// Since when it is due. It is another time when a call or another instance has begun it again.
    pub due_at: Timestamp,
    /// The event, or why it cannot be read.
    pub event: Result<WebhookEvent, String>,
}

/// The result of an attempt, or of a delivery without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Its endpoint.
    pub endpoint: EndpointId,
    /// When it was due as it was taken to be sent. If that is another time now, it was begun again meanwhile: then only
    /// success changes it, which also changes one that was cancelled meanwhile. The attempt is recorded all the same.
    pub was_due_at: Timestamp,
    /// The attempt, if there was one.
    pub attempt: Option<AttemptRecord>,
    /// Whether the attempt says nothing about the endpoint: this machine could not make it.
    pub is_local: bool,
    /// What follows.
    pub next: AfterAttempt,
    /// Why there will be another attempt, where those that were made do not say so. It is the reason of the delivery
    /// until its next outcome, or until it is begun again.
    pub waits_because: Option<String>,
}

/// What follows an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterAttempt {
    /// Another attempt, at this time of the clock of what is due.
    Retry(Timestamp),
    /// Nothing more.
    Finish {
        /// How it ended.
        state: DeliveryState,
        /// Why, where the attempts do not say so.
        reason: Option<String>,
    },
}

/// A replay to begin: the events of a range of time go to an endpoint, except those that were delivered
/// to it or are pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewReplay {
    /// Where to.
    pub endpoint: EndpointId,
    /// From when on, by the wall clock.
    pub since: Timestamp,
    /// Before when, by the wall clock.
    pub until: Timestamp,
    /// Most deliveries a second.
    pub per_second: u32,
}

/// Where a replay stands, and what comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayPage {
    /// Where it stands: to be handed back.
    pub from: i64,
    /// When the next step is due: to be handed back, because another replay may begin at the same place.
    pub due: Timestamp,
    /// Most deliveries a second.
    pub per_second: u32,
    /// The next events, in the order of their acceptance.
    pub events: Vec<ReplayEvent>,
    /// Up to where the store has looked: the events of others are passed over.
    pub to: i64,
    /// Whether more may follow.
    pub more: bool,
}

/// An event that may be replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayEvent {
    /// Its number in the store.
    pub number: i64,
    /// Its type.
    pub event_type: String,
}

/// A step of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayStep {
    /// Where to.
    pub endpoint: EndpointId,
    /// Where the replay stood.
    pub from: i64,
    /// When this step was due.
    pub due: Timestamp,
    /// The events, and when each is due.
    pub events: Vec<(i64, Timestamp)>,
    /// The last event that was looked at, and when the next step is due; `None` ends the replay.
    pub cursor: Option<(i64, Timestamp)>,
}
