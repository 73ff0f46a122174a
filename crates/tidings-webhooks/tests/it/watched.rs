//! A store that counts what it is asked, and holds steps of the fan-out back or fails them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tidings_notify::UserId;
use tidings_test_support::Gate;
use tidings_webhooks::store::{
    AcceptedEvent, Added, Addressed, Audience, DeferredEvent, LaneQuery, LaneWork, LeadRequest,
    LeaseRequest, Leased, NewReplay, NextDue, Notice, Outcome, Released, ReplayPage, ReplayStep,
    SentEvent, StoredEndpoint, StoredHealth, StoredLane, StoredSecrets,
};
use tidings_webhooks::{
    AttemptRecord, Delivery, DeliveryId, DeliveryQuery, EndpointId, Owner, Store, StoreError,
};

use crate::support::soon;

#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Looks for lanes that are due.
    pub(crate) leases: AtomicU64,
    /// Looks at what there is to do in a lane.
    pub(crate) looks: AtomicU64,
    /// Those of them that were at idle lanes.
    pub(crate) looks_at_idle: AtomicU64,
    /// Deliveries that were read to be sent.
    pub(crate) due: AtomicU64,
    /// Times that giving lanes back has begun, and that it has ended.
    pub(crate) releases_begun: AtomicU64,
    pub(crate) releases: AtomicU64,
    /// Renewals of leases.
    pub(crate) renewals: AtomicU64,
    /// Calls that write: leases, releases, outcomes.
    pub(crate) writes: AtomicU64,
    /// Outcomes that could not be written.
    pub(crate) failed_records: AtomicU64,
}

/// Steps of the fan-out that wait for a gate, if they have one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holds {
    /// The look at endpoints, with which the fan-out of a batch begins.
    pub(crate) audience: Option<Gate>,
    /// Making deliveries of deferred events.
    pub(crate) deferred: Option<Gate>,
    /// Giving lanes back.
    pub(crate) release: Option<Gate>,
    /// Looking at lanes that rest.
    pub(crate) next_due: Option<Gate>,
    /// Making the deliveries of the event with this id.
    pub(crate) add: Option<(&'static str, Gate)>,
    /// A step that fails.
    pub(crate) failing: Option<Failing>,
}

/// A step of the fan-out that fails until it is mended.
#[derive(Debug, Clone)]
pub(crate) struct Failing {
    step: FailingStep,
    error: StoreError,
    is_mended: Arc<AtomicBool>,
    failures: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum FailingStep {
    /// The look at the endpoints of this user.
    Audience(&'static str),
    /// Making the deliveries of the event with this id.
    Add(&'static str),
    /// Putting events aside.
    Defer,
}

impl Failing {
    pub(crate) fn new(step: FailingStep, error: StoreError) -> Self {
        Self {
            step,
            error,
            is_mended: Arc::default(),
            failures: Arc::default(),
        }
    }

    /// Waits until it has failed so often.
    pub(crate) async fn happened(&self, times: u64) {
        soon(async {
            while self.failures.load(Ordering::Relaxed) < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    pub(crate) fn mend(&self) {
        self.is_mended.store(true, Ordering::Relaxed);
    }

    fn fail(&self, is_meant: impl FnOnce(FailingStep) -> bool) -> Result<(), StoreError> {
        if self.is_mended.load(Ordering::Relaxed) || !is_meant(self.step) {
            return Ok(());
        }
        count(&self.failures, 1);
        Err(self.error.clone())
    }
}

impl Holds {
    fn fail(&self, is_meant: impl FnOnce(FailingStep) -> bool) -> Result<(), StoreError> {
        let failing = self.failing.as_ref();
        failing.map_or(Ok(()), |failing| failing.fail(is_meant))
    }
}

#[derive(Debug)]
pub(crate) struct Watched {
    inner: Arc<dyn Store>,
    counts: Arc<Counts>,
    holds: Holds,
}

impl Watched {
    pub(crate) fn wrap(inner: Arc<dyn Store>, counts: &Arc<Counts>) -> Arc<dyn Store> {
        Arc::new(Self {
            inner,
            counts: Arc::clone(counts),
            holds: Holds::default(),
        })
    }

    pub(crate) fn hold(inner: Arc<dyn Store>, holds: &Holds) -> Arc<dyn Store> {
        Self::count_and_hold(inner, &Arc::default(), holds)
    }

    pub(crate) fn count_and_hold(
        inner: Arc<dyn Store>,
        counts: &Arc<Counts>,
        holds: &Holds,
    ) -> Arc<dyn Store> {
        Arc::new(Self {
            inner,
            counts: Arc::clone(counts),
            holds: holds.clone(),
        })
    }
}

async fn pass(gate: Option<&Gate>) {
    if let Some(gate) = gate {
        gate.opened().await;
    }
}

fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

#[async_trait]
impl Store for Watched {
    async fn advance_clock(&self, now: Timestamp) -> Result<Timestamp, StoreError> {
        self.inner.advance_clock(now).await
    }

    async fn insert_endpoint(
        &self,
        endpoint: StoredEndpoint,
        limit: Option<usize>,
        notice: Option<Notice>,
    ) -> Result<(), StoreError> {
        self.inner.insert_endpoint(endpoint, limit, notice).await
    }

    async fn replace_endpoint(
        &self,
        endpoint: StoredEndpoint,
        now: Timestamp,
        notice: Option<Notice>,
    ) -> Result<bool, StoreError> {
        self.inner.replace_endpoint(endpoint, now, notice).await
    }

    async fn endpoint(&self, id: EndpointId) -> Result<Option<StoredEndpoint>, StoreError> {
        self.inner.endpoint(id).await
    }

    async fn endpoints(&self, owner: &Owner) -> Result<Vec<StoredEndpoint>, StoreError> {
        self.inner.endpoints(owner).await
    }

    async fn secrets(
        &self,
        after: Option<EndpointId>,
        limit: usize,
    ) -> Result<Vec<StoredSecrets>, StoreError> {
        self.inner.secrets(after, limit).await
    }

    async fn replace_secrets(&self, secrets: Vec<StoredSecrets>) -> Result<(), StoreError> {
        self.inner.replace_secrets(secrets).await
    }

    async fn health(&self, id: EndpointId) -> Result<StoredHealth, StoreError> {
        self.inner.health(id).await
    }

    async fn newest_endpoint_if_wanted(&self, users: &[UserId]) -> Result<Option<u64>, StoreError> {
        self.inner.newest_endpoint_if_wanted(users).await
    }

    async fn audience(&self, users: &[UserId]) -> Result<Audience, StoreError> {
        if !users.is_empty() {
            pass(self.holds.audience.as_ref()).await;
        }
        let is_asked = |name| users.iter().any(|user| user.as_str() == name);
        self.holds
            .fail(|step| matches!(step, FailingStep::Audience(name) if is_asked(name)))?;
        self.inner.audience(users).await
    }

    async fn add_deliveries(
        &self,
        events: Arc<[Addressed]>,
        at: Timestamp,
    ) -> Result<Added, StoreError> {
        if let Some((id, gate)) = &self.holds.add
            && events.iter().any(|addressed| addressed.event.id() == *id)
        {
            gate.opened().await;
        }
        let has = |id| events.iter().any(|addressed| addressed.event.id() == id);
        self.holds
            .fail(|step| matches!(step, FailingStep::Add(id) if has(id)))?;
        self.inner.add_deliveries(events, at).await
    }

    async fn defer(&self, events: Vec<AcceptedEvent>) -> Result<(), StoreError> {
        self.holds.fail(|step| matches!(step, FailingStep::Defer))?;
        self.inner.defer(events).await
    }

    async fn deferred(
        &self,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<DeferredEvent>, StoreError> {
        self.inner.deferred(limit, max_bytes).await
    }

    async fn add_deferred(
        &self,
        events: Vec<(i64, Option<Addressed>)>,
        at: Timestamp,
    ) -> Result<Option<usize>, StoreError> {
        pass(self.holds.deferred.as_ref()).await;
        self.inner.add_deferred(events, at).await
    }

    fn acknowledged_in(&self, file: Option<&Path>) {
        self.inner.acknowledged_in(file);
    }

    async fn lead(&self, lead: LeadRequest) -> Result<bool, StoreError> {
        self.inner.lead(lead).await
    }

    async fn resign(&self, instance: &str) -> Result<(), StoreError> {
        self.inner.resign(instance).await
    }

    async fn lease_lanes(&self, lease: LeaseRequest) -> Result<Leased, StoreError> {
        count(&self.counts.leases, 1);
        let leased = self.inner.lease_lanes(lease).await?;
        if !leased.lanes.is_empty() {
            count(&self.counts.writes, 1);
        }
        Ok(leased)
    }

    async fn renew_lanes(
        &self,
        instance: &str,
        until: Timestamp,
    ) -> Result<Vec<(EndpointId, u64)>, StoreError> {
        let renewed = self.inner.renew_lanes(instance, until).await;
        count(&self.counts.renewals, 1);
        renewed
    }

    async fn release_lanes(
        &self,
        instance: &str,
        lanes: Vec<Released>,
    ) -> Result<Option<Timestamp>, StoreError> {
        count(&self.counts.writes, 1);
        count(&self.counts.releases_begun, 1);
        pass(self.holds.release.as_ref()).await;
        let released = self.inner.release_lanes(instance, lanes).await;
        count(&self.counts.releases, 1);
        released
    }

    async fn lane_work(&self, query: LaneQuery) -> Result<LaneWork, StoreError> {
        count(&self.counts.looks, 1);
        let work = self.inner.lane_work(query).await?;
        count(&self.counts.due, work.due.len());
        Ok(work)
    }

    async fn lanes(&self, endpoints: &[EndpointId]) -> Result<Vec<StoredLane>, StoreError> {
        self.inner.lanes(endpoints).await
    }

    async fn next_due(&self, endpoints: &[EndpointId]) -> Result<Vec<NextDue>, StoreError> {
        count(&self.counts.looks, 1);
        count(&self.counts.looks_at_idle, 1);
        pass(self.holds.next_due.as_ref()).await;
        self.inner.next_due(endpoints).await
    }

    async fn record(
        &self,
        outcomes: Vec<Outcome>,
        now: Timestamp,
        at: Timestamp,
    ) -> Result<Vec<(EndpointId, Option<Timestamp>)>, StoreError> {
        let recorded = self.inner.record(outcomes, now, at).await;
        let counter = match &recorded {
            Ok(_) => &self.counts.writes,
            Err(_) => &self.counts.failed_records,
        };
        count(counter, 1);
        recorded
    }

    async fn cancel_deliveries(
        &self,
        endpoint: EndpointId,
        because: &str,
        at: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        self.inner
            .cancel_deliveries(endpoint, because, at, limit)
            .await
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.inner.delivery(id).await
    }

    async fn deliveries(&self, query: &DeliveryQuery) -> Result<Vec<Delivery>, StoreError> {
        self.inner.deliveries(query).await
    }

    async fn attempts(&self, id: DeliveryId) -> Result<Option<Vec<AttemptRecord>>, StoreError> {
        self.inner.attempts(id).await
    }

    async fn sent_event(&self, id: DeliveryId) -> Result<Option<SentEvent>, StoreError> {
        self.inner.sent_event(id).await
    }

    async fn count_pending(&self) -> Result<u64, StoreError> {
        self.inner.count_pending().await
    }

    async fn retry_delivery(
        &self,
        id: DeliveryId,
        now: Timestamp,
    ) -> Result<Option<EndpointId>, StoreError> {
        self.inner.retry_delivery(id, now).await
    }

    async fn start_replay(&self, replay: NewReplay, now: Timestamp) -> Result<bool, StoreError> {
        self.inner.start_replay(replay, now).await
    }

    async fn stop_replay(&self, endpoint: EndpointId) -> Result<bool, StoreError> {
        self.inner.stop_replay(endpoint).await
    }

    async fn replay_page(
        &self,
        endpoint: EndpointId,
        limit: usize,
    ) -> Result<Option<ReplayPage>, StoreError> {
        self.inner.replay_page(endpoint, limit).await
    }

    async fn replay(&self, step: ReplayStep, at: Timestamp) -> Result<(), StoreError> {
        self.inner.replay(step, at).await
    }

    async fn clean(&self, cutoff: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.inner.clean(cutoff, limit).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
