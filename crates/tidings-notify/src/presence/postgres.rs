//! Presence on a PostgreSQL database, which many instances share.
//!
//! ```text
//! tidings_presence_lease       one row per instance: where it is, its version, when it ends
//! tidings_presence_user        (user, lease): who has connections where
//! tidings_presence_transition  the newest users who came online or went offline
//! tidings_presence_log         one row: the number of the last transition, and the lock for updates
//! ```
//!
//! The tables are `UNLOGGED`: presence is worth nothing once the connections are gone, so nothing is
//! written to the log of the database, and no call waits for its disk. A server that crashes begins
//! with empty tables, and so does a standby that is promoted: the next heartbeat of each instance
//! fills them again. Truncating them is harmless for the same reason.
//!
//! # Cost
//!
//! A heartbeat is one statement that changes one row, whatever the number of connections. Updates name
//! up to [`MAX_UPDATE`](super::MAX_UPDATE) users, in one transaction that no other update can overlap:
//! so transitions have dense numbers in the order of their commits, and no reader misses one. What
//! leases that have ended leave behind is removed with the same bound. Nothing is notified; trackers
//! that are watched ask.
//!
//! # Time
//!
//! When a lease ends is judged by the server's clock. Names are looked up in the search path of the
//! connection, so that one database can have several sets of these tables.
//!
//! # Connections
//!
//! Two: one for writes, one for reads. They are made when they are first needed, and made again when they
//! break; the call that was under way then fails. Statements are not prepared, so a pooler that shares
//! sessions may be in between.

mod failure;
mod options;
mod reading;
mod writing;

use std::sync::Arc;

use async_trait::async_trait;
use tidings_postgres::Database;
pub use tidings_postgres::{Config, tokio_postgres};
use tokio_util::sync::CancellationToken;

use super::{
    Heartbeat, Lease, LeaseId, Mark, Presence, PresenceError, Standing, Transitions, Update,
};
use crate::{RoutingInfo, UserId};

pub use options::PostgresOptions;

/// The steps of the migration. One that was released is never changed; a change is another step.
const STEPS: [&str; 1] = [concat!(
    include_str!("postgres/schema/tables.sql"),
    include_str!("postgres/schema/functions.sql"),
)];

/// The name of its tables in the list of schemas, and the version that this package makes.
pub const SCHEMA: (&str, usize) = ("tidings_presence", STEPS.len());

/// Presence on a PostgreSQL database, version 14 or later. Clones share it.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use tidings_notify::presence::postgres::{Config, PostgresOptions, PostgresPresence};
/// use tidings_notify::presence::{Tracker, TrackerOptions};
/// use tidings_notify::{Presence, RoutingInfo};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::new("postgres://tidings@127.0.0.1/tidings")?;
/// let presence = PostgresPresence::open(config, PostgresOptions::default()).await?;
/// let presence: Arc<dyn Presence> = Arc::new(presence);
/// let here = RoutingInfo { instance_id: "web-3".into(), ..RoutingInfo::default() };
/// let tracker = Tracker::join(presence, here, TrackerOptions::default())?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct PostgresPresence {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// For updates and heartbeats, which no long query may delay.
    writes: Database,
    reads: Database,
    kept: i64,
    closing: CancellationToken,
}

impl PostgresPresence {
    /// Opens presence on a database, and creates the tables if they do not exist.
    ///
    /// # Errors
    ///
    /// [`PresenceError::Backend`] if the server cannot be reached, does not let this role create tables,
    /// or has tables of a newer version. The call can be repeated.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which its connections need.
    pub async fn open(config: Config, options: PostgresOptions) -> Result<Self, PresenceError> {
        let writes = Database::new(config.clone());
        let migrated = writes.migrate(SCHEMA.0, &STEPS).await;
        migrated.map_err(PresenceError::backend)?;
        Ok(Self {
            shared: Arc::new(Shared {
                writes,
                reads: Database::new(config),
                kept: options.kept_transitions,
                closing: CancellationToken::new(),
            }),
        })
    }

    /// Runs a call unless the presence is closed, or gives it up when that happens.
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, PresenceError>> + Send,
    ) -> Result<T, PresenceError> {
        let called = self.shared.closing.run_until_cancelled(call).await;
        called.unwrap_or(Err(PresenceError::Closed))
    }
}

#[async_trait]
impl Presence for PostgresPresence {
    async fn update(&self, lease: &Lease, update: &Update) -> Result<Standing, PresenceError> {
        let Shared { writes, kept, .. } = &*self.shared;
        self.call(writing::update(writes, *kept, lease, update))
            .await
    }

    async fn beat(&self, lease: &Lease, expected: &Heartbeat) -> Result<Standing, PresenceError> {
        let Shared { writes, kept, .. } = &*self.shared;
        self.call(writing::beat(writes, *kept, lease, expected))
            .await
    }

    async fn end(&self, lease: LeaseId) -> Result<(), PresenceError> {
        self.call(writing::end(&self.shared.writes, lease)).await
    }

    async fn online_users(&self, users: &[UserId]) -> Result<Vec<UserId>, PresenceError> {
        self.call(reading::online_users(&self.shared.reads, users))
            .await
    }

    async fn locate(&self, user: &UserId) -> Result<Vec<RoutingInfo>, PresenceError> {
        self.call(reading::locate(&self.shared.reads, user)).await
    }

    async fn transitions(
        &self,
        after: Option<Mark>,
        limit: usize,
    ) -> Result<Transitions, PresenceError> {
        let Shared { reads, kept, .. } = &*self.shared;
        self.call(reading::transitions(reads, *kept, after, limit))
            .await
    }

    async fn close(&self) {
        let Shared {
            writes,
            reads,
            closing,
            ..
        } = &*self.shared;
        closing.cancel();
        writes.disconnect();
        reads.disconnect();
    }
}
