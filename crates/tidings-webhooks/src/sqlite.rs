//! The store on a SQLite file, which may have other tables too.
//!
//! | table | holds |
//! |---|---|
//! | `webhook_endpoint` | one row an endpoint; a removed one stays until its deliveries are cleaned |
//! | `webhook_event` | one row an event that an endpoint gets, or would get if it were enabled |
//! | `webhook_newest_endpoint` | one row: the number of the newest endpoint |
//! | `webhook_deferred` | one row an event whose deliveries are made later, because they are many |
//! | `webhook_delivery` | one row an event and endpoint: the queue and the record in one |
//! | `webhook_attempt` | one row an attempt |
//! | `webhook_leader` | one row: which instance makes deliveries |
//! | `webhook_lane` | one row an endpoint with work: when it is due, and who serves it |
//! | `webhook_health` | one row an endpoint that was ever called |
//! | `webhook_replay` | one row a replay that is under way |
//! | `webhook_clock` | one row: the latest time by which anything was due |
//!
//! # Loss of power
//!
//! What is accepted reaches its endpoints also after a loss of power. If the stream of accepted events is in the same file,
//! its deliveries are made without waiting for the disk: where they are lost, the acknowledgement of their message is lost,
//! too, and they are made again. If the stream is in another file or on a server, each step waits for the disk.
//!
//! # Restarts
//!
//! The file `<database>.webhooks.lock` shows whether another store is open on the same database, in
//! this process or another. If none is, every leased lane belongs to a process that has
//! ended, and is free at once. When one is, leases end by their time.

mod accept;
mod cleanup;
mod deferred;
mod deliveries;
mod endpoints;
mod events;
mod lanes;
mod leader;
mod operation;
mod outcomes;
mod replay;
pub(crate) mod schema;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, Transaction};
use tidings_notify::UserId;
use tidings_sqlite::{Database, Handle, Liveness};

use crate::health::StoredHealth;
use crate::store::{
    AcceptedEvent, Added, Addressed, Audience, DeferredEvent, LaneQuery, LaneWork, LeadRequest,
    LeaseRequest, Leased, NewReplay, NextDue, Notice, Outcome, Released, ReplayPage, ReplayStep,
    SentEvent, StoredEndpoint, StoredLane, StoredSecrets,
};
use crate::{
    AttemptRecord, Delivery, DeliveryId, DeliveryQuery, EndpointId, Owner, Store, StoreError,
};

pub use accept::accept_in;
pub use endpoints::create_endpoint_in;
pub use operation::apply_in;

/// Keeps webhooks in a SQLite file, which other components may share. Clones share the store.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    handle: Handle,
    file: Arc<Path>,
    acknowledged: Arc<Acknowledged>,
    _liveness: Arc<Liveness>,
}

/// Where messages are acknowledged whose events the store is given.
#[derive(Debug, Default)]
struct Acknowledged {
    here: AtomicBool,
    elsewhere: AtomicBool,
}

impl Acknowledged {
    /// Whether an acknowledgement is lost with the commits before it, if those are lost.
    fn is_here_alone(&self) -> bool {
        self.here.load(Ordering::Acquire) && !self.elsewhere.load(Ordering::Acquire)
    }
}

impl SqliteStore {
    /// Brings the tables up to date, frees the lanes of an earlier run, and returns the store.
    ///
    /// # Errors
    ///
    /// [`StoreError::Closed`] when the database is closed, [`StoreError::Unavailable`] when another process holds the lock
    /// of its file, [`StoreError::Full`] when there is no room for the tables, [`StoreError::Backend`] when they were made
    /// by a newer version or the database fails.
    pub async fn open(database: Database) -> Result<Self, StoreError> {
        database.migrate(schema::COMPONENT, schema::STEPS).await?;
        let liveness = match Liveness::register(&database, "webhooks", lanes::free_all).await {
            // A process must be able to start on a full disk. The leases of the earlier run end by their time.
            Err(StoreError::Full(_)) => {
                Liveness::register(&database, "webhooks", |_: &Transaction<'_>| {
                    Ok::<(), StoreError>(())
                })
                .await?
            }
            registered => registered?,
        };
        Ok(Self {
            file: database.path().into(),
            handle: Handle::new(database),
            acknowledged: Arc::default(),
            _liveness: Arc::new(liveness),
        })
    }

    /// Writes what a message asks for, before the message is acknowledged.
    async fn write_of_message<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        if self.acknowledged.is_here_alone() {
            self.handle.write_relaxed(job).await
        } else {
            self.handle.write(job).await
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn advance_clock(&self, now: Timestamp) -> Result<Timestamp, StoreError> {
        self.handle
            .write_relaxed(move |tx| lanes::advance_clock(tx, now))
            .await
    }

    async fn insert_endpoint(
        &self,
        endpoint: StoredEndpoint,
        limit: Option<usize>,
        notice: Option<Notice>,
    ) -> Result<(), StoreError> {
        self.handle
            .write(move |tx| {
                endpoints::insert(tx, &endpoint, limit)?;
                events::add_notice(tx, notice.as_ref())
            })
            .await
    }

    async fn replace_endpoint(
        &self,
        endpoint: StoredEndpoint,
        now: Timestamp,
        notice: Option<Notice>,
    ) -> Result<bool, StoreError> {
        self.handle
            .write(move |tx| {
                let replaced = endpoints::replace(tx, &endpoint, now)?;
                if replaced {
                    events::add_notice(tx, notice.as_ref())?;
                }
                Ok(replaced)
            })
            .await
    }

    async fn endpoint(&self, id: EndpointId) -> Result<Option<StoredEndpoint>, StoreError> {
        self.handle
            .read(move |connection| {
                let found = endpoints::find(connection, id)?;
                Ok(found.filter(|endpoint| !endpoint.removed))
            })
            .await
    }

    async fn endpoints(&self, owner: &Owner) -> Result<Vec<StoredEndpoint>, StoreError> {
        let owner = owner.clone();
        self.handle
            .list(move |connection| endpoints::list(connection, &owner))
            .await
    }

    async fn secrets(
        &self,
        after: Option<EndpointId>,
        limit: usize,
    ) -> Result<Vec<StoredSecrets>, StoreError> {
        self.handle
            .read(move |connection| endpoints::secrets(connection, after, limit))
            .await
    }

    async fn replace_secrets(&self, secrets: Vec<StoredSecrets>) -> Result<(), StoreError> {
        self.handle
            .write(move |tx| endpoints::replace_secrets(tx, &secrets))
            .await
    }

    async fn health(&self, id: EndpointId) -> Result<StoredHealth, StoreError> {
        self.handle
            .read(move |connection| outcomes::health(connection, id))
            .await
    }

    async fn newest_endpoint_if_wanted(&self, users: &[UserId]) -> Result<Option<u64>, StoreError> {
        let users = users.to_vec();
        self.handle
            .read(move |connection| endpoints::newest_if_wanted(connection, users.iter()))
            .await
    }

    async fn audience(&self, users: &[UserId]) -> Result<Audience, StoreError> {
        let users = users.to_vec();
        self.handle
            .read(move |connection| {
                Ok(Audience {
                    listeners: endpoints::listeners(connection, &users)?,
                    deferred: deferred::users(connection, &users)?,
                })
            })
            .await
    }

    async fn add_deliveries(
        &self,
        events: Arc<[Addressed]>,
        at: Timestamp,
    ) -> Result<Added, StoreError> {
        self.write_of_message(move |tx| events::add(tx, &events, at))
            .await
    }

    async fn defer(&self, events: Vec<AcceptedEvent>) -> Result<(), StoreError> {
        self.write_of_message(move |tx| deferred::defer(tx, &events))
            .await
    }

    async fn deferred(
        &self,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<DeferredEvent>, StoreError> {
        self.handle
            .read(move |connection| deferred::first(connection, limit, max_bytes))
            .await
    }

    async fn add_deferred(
        &self,
        events: Vec<(i64, Option<Addressed>)>,
        at: Timestamp,
    ) -> Result<Option<usize>, StoreError> {
        self.handle
            .write_relaxed(move |tx| deferred::add(tx, events, at))
            .await
    }

    fn acknowledged_in(&self, file: Option<&Path>) {
        let is_here = file == Some(&*self.file);
        let Acknowledged { here, elsewhere } = &*self.acknowledged;
        let place = if is_here { here } else { elsewhere };
        place.store(true, Ordering::Release);
    }

    async fn lead(&self, lead: LeadRequest) -> Result<bool, StoreError> {
        let asked = lead.clone();
        // Those that wait for the lead write nothing.
        let is_free = move |connection: &Connection| leader::is_free(connection, &asked);
        Ok(self.handle.read(is_free).await?
            && self
                .handle
                .write_relaxed(move |tx| leader::lead(tx, &lead))
                .await?)
    }

    async fn resign(&self, instance: &str) -> Result<(), StoreError> {
        let instance = instance.to_owned();
        self.handle
            .write_relaxed(move |tx| leader::resign(tx, &instance))
            .await
    }

    async fn lease_lanes(&self, lease: LeaseRequest) -> Result<Leased, StoreError> {
        // Most of the time nothing is due, and looking costs no transaction of the writer.
        let next_due = self.handle.read(lanes::next_free).await?;
        if next_due.is_none_or(|due| due > lease.now) {
            return Ok(Leased {
                lanes: Vec::new(),
                next_due,
            });
        }
        self.handle
            .write_relaxed(move |tx| lanes::lease(tx, &lease))
            .await
    }

    async fn renew_lanes(
        &self,
        instance: &str,
        until: Timestamp,
    ) -> Result<Vec<(EndpointId, u64)>, StoreError> {
        let instance = instance.to_owned();
        self.handle
            .write_relaxed(move |tx| lanes::renew(tx, &instance, until))
            .await
    }

    async fn release_lanes(
        &self,
        instance: &str,
        lanes: Vec<Released>,
    ) -> Result<Option<Timestamp>, StoreError> {
        let instance = instance.to_owned();
        self.handle
            .write_relaxed(move |tx| lanes::release(tx, &instance, &lanes))
            .await
    }

    async fn lane_work(&self, query: LaneQuery) -> Result<LaneWork, StoreError> {
        self.handle
            .read(move |connection| lanes::work(connection, &query))
            .await
    }

    async fn lanes(&self, endpoints: &[EndpointId]) -> Result<Vec<StoredLane>, StoreError> {
        let endpoints = endpoints.to_vec();
        self.handle
            .read(move |connection| lanes::stored(connection, &endpoints))
            .await
    }

    async fn next_due(&self, endpoints: &[EndpointId]) -> Result<Vec<NextDue>, StoreError> {
        let endpoints = endpoints.to_vec();
        self.handle
            .read(move |connection| lanes::next_due(connection, &endpoints))
            .await
    }

    async fn record(
        &self,
        outcomes: Vec<Outcome>,
        now: Timestamp,
        at: Timestamp,
    ) -> Result<Vec<(EndpointId, Option<Timestamp>)>, StoreError> {
        self.handle
            .write_relaxed(move |tx| outcomes::record(tx, &outcomes, now, at))
            .await
    }

    async fn cancel_deliveries(
        &self,
        endpoint: EndpointId,
        because: &str,
        at: Timestamp,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let because = because.to_owned();
        self.handle
            .write_relaxed(move |tx| outcomes::cancel(tx, endpoint, &because, at, limit))
            .await
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.handle
            .read(move |connection| deliveries::find(connection, id))
            .await
    }

    async fn deliveries(&self, query: &DeliveryQuery) -> Result<Vec<Delivery>, StoreError> {
        let query = query.clone();
        self.handle
            .list(move |connection| deliveries::list(connection, &query))
            .await
    }

    async fn attempts(&self, id: DeliveryId) -> Result<Option<Vec<AttemptRecord>>, StoreError> {
        self.handle
            .list(move |connection| deliveries::attempts(connection, id))
            .await
    }

    async fn sent_event(&self, id: DeliveryId) -> Result<Option<SentEvent>, StoreError> {
        self.handle
            .read(move |connection| lanes::sent_event(connection, id))
            .await
    }

    async fn count_pending(&self) -> Result<u64, StoreError> {
        self.handle.read(deliveries::count_pending).await
    }

    async fn retry_delivery(
        &self,
        id: DeliveryId,
        now: Timestamp,
    ) -> Result<Option<EndpointId>, StoreError> {
        self.handle
            .write(move |tx| deliveries::retry(tx, id, now))
            .await
    }

    async fn start_replay(&self, replay: NewReplay, now: Timestamp) -> Result<bool, StoreError> {
        self.handle
            .write(move |tx| replay::start(tx, &replay, now))
            .await
    }

    async fn stop_replay(&self, endpoint: EndpointId) -> Result<bool, StoreError> {
        self.handle
            .write(move |tx| replay::stop(tx, endpoint))
            .await
    }

    async fn replay_page(
        &self,
        endpoint: EndpointId,
        limit: usize,
    ) -> Result<Option<ReplayPage>, StoreError> {
        self.handle
            .read(move |connection| replay::page(connection, endpoint, limit))
            .await
    }

    async fn replay(&self, step: ReplayStep, at: Timestamp) -> Result<(), StoreError> {
        self.handle
            .write_relaxed(move |tx| replay::step(tx, &step, at))
            .await
    }

    async fn clean(&self, cutoff: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.handle
            .write_relaxed(move |tx| cleanup::run(tx, cutoff, limit))
            .await
    }

    /// Refuses later calls on this store and its clones. The database stays open for those who
    /// share it.
    async fn close(&self) {
        self.handle.close();
    }
}
