//! The store on a PostgreSQL database, which many instances share.
//!
//! | table `tidings_webhook_…` | holds |
//! |---|---|
//! | `endpoint` | one row an endpoint; a removed one stays until its deliveries are cleaned |
//! | `event` | one row an event that an endpoint gets, or would get if it were enabled |
//! | `deferred` | one row an event whose deliveries are made later, because they are many |
//! | `delivery` | one row an event and endpoint: the queue and the record in one |
//! | `attempt` | one row an attempt |
//! | `leader` | one row: which instance makes deliveries |
//! | `lane` | one row an endpoint with work: when it is due, and who serves it |
//! | `health` | one row an endpoint that was ever called |
//! | `replay` | one row a replay that is under way |
//! | `clock` | one row: the latest time by which anything was due |
//!
//! Every change is one call of a function in the database, so it is one short transaction with one
//! round trip. Locks are taken in a fixed order. Nothing notifies: commits that do are made one after
//! the other by the server.

mod accept;
mod deferred;
mod deliveries;
mod endpoints;
mod events;
mod lanes;
mod operation;
mod outcomes;
mod replay;
mod schema;
mod statements;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use tidings_notify::UserId;
pub use tidings_postgres::{Config, tokio_postgres};
use tidings_postgres::{Connections, Database, Sessions};
use tokio_postgres::types::Type;

use crate::health::StoredHealth;
use crate::store::{
    AcceptedEvent, Added, Addressed, Audience, DeferredEvent, LaneQuery, LaneWork, LeadRequest,
    LeaseRequest, Leased, NewReplay, NextDue, Notice, Outcome, Released, ReplayPage, ReplayStep,
    SentEvent, StoredEndpoint, StoredLane, StoredSecrets,
};
use crate::{
    AttemptRecord, Delivery, DeliveryId, DeliveryQuery, EndpointId, Owner, Store, StoreError,
};
use schema::{column, limit, micros, time};

pub use accept::{Interest, accept_in, hand_over_in, interest_in};
pub use endpoints::create_endpoint_in;
pub use operation::apply_in;

/// The name of its tables in the list of schemas, and the version that this package makes.
pub const SCHEMA: (&str, usize) = (schema::COMPONENT, schema::STEPS.len());

/// How to use the database.
#[derive(Debug, Clone)]
#[must_use]
pub struct PostgresOptions {
    connections: usize,
}

impl Default for PostgresOptions {
    /// Four connections.
    fn default() -> Self {
        Self { connections: 4 }
    }
}

impl PostgresOptions {
    /// Sets how many connections there are at most; zero means one.
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }
}

/// Keeps webhooks in a PostgreSQL database. Clones share the connections.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    connections: Arc<Connections>,
}

impl PostgresStore {
    /// Brings the tables up to date, and returns the store. The tables are those of the search path.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] when the server cannot be reached, [`StoreError::OutcomeUnknown`] when it does not
    /// reply, [`StoreError::Backend`] when it does not let this role create tables, or has tables of a newer version. The
    /// call can be repeated.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which the tasks of connections need.
    pub async fn open(config: Config, options: PostgresOptions) -> Result<Self, StoreError> {
        let database = Database::new(config);
        database.migrate(schema::COMPONENT, schema::STEPS).await?;
        let sessions = Sessions::of(&database).await?;
        let connections = Connections::new(database, options.connections, sessions);
        Ok(Self {
            connections: Arc::new(connections),
        })
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn advance_clock(&self, now: Timestamp) -> Result<Timestamp, StoreError> {
        let row = self
            .connections
            .row(
                "INSERT INTO tidings_webhook_clock AS clock (one, now) VALUES (1, $1)
             ON CONFLICT (one) DO UPDATE SET now = greatest(clock.now, excluded.now)
             RETURNING now",
                &[(&micros(now), Type::INT8)],
            )
            .await?;
        time(row.try_get(0).map_err(column)?)
    }

    async fn insert_endpoint(
        &self,
        endpoint: StoredEndpoint,
        limit: Option<usize>,
        notice: Option<Notice>,
    ) -> Result<(), StoreError> {
        endpoints::insert(&self.connections, &endpoint, limit, notice.as_ref()).await
    }

    async fn replace_endpoint(
        &self,
        endpoint: StoredEndpoint,
        now: Timestamp,
        notice: Option<Notice>,
    ) -> Result<bool, StoreError> {
        endpoints::replace(&*self.connections, &endpoint, now, notice.as_ref()).await
    }

    async fn endpoint(&self, id: EndpointId) -> Result<Option<StoredEndpoint>, StoreError> {
        let found = endpoints::find(&self.connections, id).await?;
        Ok(found.filter(|endpoint| !endpoint.removed))
    }

    async fn endpoints(&self, owner: &Owner) -> Result<Vec<StoredEndpoint>, StoreError> {
        endpoints::list(&self.connections, owner).await
    }

    async fn secrets(
        &self,
        after: Option<EndpointId>,
        limit: usize,
    ) -> Result<Vec<StoredSecrets>, StoreError> {
        endpoints::secrets(&self.connections, after, limit).await
    }

    async fn replace_secrets(&self, secrets: Vec<StoredSecrets>) -> Result<(), StoreError> {
        endpoints::replace_secrets(&self.connections, &secrets).await
    }

    async fn health(&self, id: EndpointId) -> Result<StoredHealth, StoreError> {
        outcomes::health(&self.connections, id).await
    }

    async fn newest_endpoint_if_wanted(&self, users: &[UserId]) -> Result<Option<u64>, StoreError> {
        let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
        let parameters = [(&users as _, Type::TEXT_ARRAY)];
        let rows = self
            .connections
            .query(endpoints::NEWEST_IF_WANTED, &parameters)
            .await?;
        endpoints::newest(rows.first())
    }

    async fn audience(&self, users: &[UserId]) -> Result<Audience, StoreError> {
        endpoints::audience(&self.connections, users).await
    }

    async fn add_deliveries(
        &self,
        events: Arc<[Addressed]>,
        at: Timestamp,
    ) -> Result<Added, StoreError> {
        events::add(&*self.connections, &events, at).await
    }

    async fn defer(&self, events: Vec<AcceptedEvent>) -> Result<(), StoreError> {
        deferred::defer(&self.connections, &events).await
    }

    async fn deferred(
        &self,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<DeferredEvent>, StoreError> {
        deferred::first(&self.connections, limit, max_bytes).await
    }

    async fn add_deferred(
        &self,
        events: Vec<(i64, Option<Addressed>)>,
        at: Timestamp,
    ) -> Result<Option<usize>, StoreError> {
        deferred::add(&self.connections, events, at).await
    }

    async fn lead(&self, lead: LeadRequest) -> Result<bool, StoreError> {
        // Those that wait for the lead only read.
        let rows = self
            .connections
            .query(
                "INSERT INTO tidings_webhook_leader AS leader (one, instance, until)
                 SELECT true, $1, $3 WHERE NOT EXISTS (
                     SELECT FROM tidings_webhook_leader WHERE instance <> $1 AND until > $2)
                 ON CONFLICT (one) DO UPDATE
                 SET instance = excluded.instance, until = excluded.until
                 WHERE leader.instance = $1 OR leader.until <= $2
                 RETURNING one",
                &[
                    (&lead.instance, Type::TEXT),
                    (&micros(lead.now), Type::INT8),
                    (&micros(lead.until), Type::INT8),
                ],
            )
            .await?;
        Ok(!rows.is_empty())
    }

    async fn resign(&self, instance: &str) -> Result<(), StoreError> {
        let resign = "DELETE FROM tidings_webhook_leader WHERE instance = $1";
        let resigned = self
            .connections
            .query(resign, &[(&instance, Type::TEXT)])
            .await?;
        drop(resigned);
        Ok(())
    }

    async fn lease_lanes(&self, lease: LeaseRequest) -> Result<Leased, StoreError> {
        lanes::lease(&self.connections, &lease).await
    }

    async fn renew_lanes(
        &self,
        instance: &str,
        until: Timestamp,
    ) -> Result<Vec<(EndpointId, u64)>, StoreError> {
        lanes::renew(&self.connections, instance, until).await
    }

    async fn release_lanes(
        &self,
        instance: &str,
        lanes: Vec<Released>,
    ) -> Result<Option<Timestamp>, StoreError> {
        lanes::release(&self.connections, instance, &lanes).await
    }

    async fn lane_work(&self, query: LaneQuery) -> Result<LaneWork, StoreError> {
        lanes::work(&self.connections, &query).await
    }

    async fn lanes(&self, endpoints: &[EndpointId]) -> Result<Vec<StoredLane>, StoreError> {
        lanes::stored(&self.connections, endpoints).await
    }

    async fn next_due(&self, endpoints: &[EndpointId]) -> Result<Vec<NextDue>, StoreError> {
        lanes::next_due(&self.connections, endpoints).await
    }

    async fn record(
        &self,
        outcomes: Vec<Outcome>,
        now: Timestamp,
        at: Timestamp,
    ) -> Result<Vec<(EndpointId, Option<Timestamp>)>, StoreError> {
        outcomes::record(&self.connections, &outcomes, now, at).await
    }

    async fn cancel_deliveries(
        &self,
        endpoint: EndpointId,
        because: &str,
        at: Timestamp,
        most: usize,
    ) -> Result<usize, StoreError> {
        let row = self
            .connections
            .row(
                "SELECT tidings_webhook_cancel($1, $2, $3, $4)",
                &[
                    (&endpoint.as_i64(), Type::INT8),
                    (&because, Type::TEXT),
                    (&micros(at), Type::INT8),
                    (&limit(most), Type::INT8),
                ],
            )
            .await?;
        let cancelled: i64 = row.try_get(0).map_err(column)?;
        Ok(usize::try_from(cancelled).unwrap_or(usize::MAX))
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        deliveries::find(&*self.connections, id).await
    }

    async fn deliveries(&self, query: &DeliveryQuery) -> Result<Vec<Delivery>, StoreError> {
        deliveries::list(&self.connections, query).await
    }

    async fn attempts(&self, id: DeliveryId) -> Result<Option<Vec<AttemptRecord>>, StoreError> {
        deliveries::attempts(&self.connections, id).await
    }

    async fn sent_event(&self, id: DeliveryId) -> Result<Option<SentEvent>, StoreError> {
        lanes::sent_event(&self.connections, id).await
    }

    async fn count_pending(&self) -> Result<u64, StoreError> {
        deliveries::count_pending(&self.connections, None).await
    }

    async fn retry_delivery(
        &self,
        id: DeliveryId,
        now: Timestamp,
    ) -> Result<Option<EndpointId>, StoreError> {
        deliveries::retry(&*self.connections, id, now).await
    }

    async fn start_replay(&self, replay: NewReplay, now: Timestamp) -> Result<bool, StoreError> {
        replay::start(&*self.connections, &replay, now).await
    }

    async fn stop_replay(&self, endpoint: EndpointId) -> Result<bool, StoreError> {
        replay::stop(&self.connections, endpoint).await
    }

    async fn replay_page(
        &self,
        endpoint: EndpointId,
        limit: usize,
    ) -> Result<Option<ReplayPage>, StoreError> {
        replay::page(&self.connections, endpoint, limit).await
    }

    async fn replay(&self, step: ReplayStep, at: Timestamp) -> Result<(), StoreError> {
        replay::step(&self.connections, &step, at).await
    }

    async fn clean(&self, cutoff: Timestamp, most: usize) -> Result<usize, StoreError> {
        let row = self
            .connections
            .row(
                "SELECT tidings_webhook_clean($1, $2)",
                &[(&micros(cutoff), Type::INT8), (&limit(most), Type::INT8)],
            )
            .await?;
        let count: i64 = row.try_get(0).map_err(column)?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Refuses later calls on this store and its clones, and lets calls under way end.
    async fn close(&self) {
        self.connections.close();
    }
}
