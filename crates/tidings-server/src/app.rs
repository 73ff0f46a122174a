//! What every handler shares.

use std::sync::Arc;

use tidings_notify::Notifier;
use tidings_notify::presence::Tracker;
use tidings_storage::Storage;
use tidings_webhooks::Webhooks;
use tidings_webhooks::encryption::EncryptionKeys;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept::Acceptor;
use crate::access::Access;
use crate::bins::Bins;
use crate::config::Config;
use crate::farewell::Farewell;
use crate::health::Readiness;
use crate::http::{EventLoops, Room};
use crate::limits::Limits;
use crate::openings::Openings;
use crate::outage::Outage;
use crate::permits::Permits;

/// The parts of a running server, as its handlers see them.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) access: Arc<Access>,
    pub(crate) storage: Storage,
    pub(crate) notifier: Notifier,
    /// What this process is called among those that share the database.
    pub(crate) instance: String,
    /// Registers the streams of this process with the presence of the storage.
    pub(crate) tracker: Tracker,
    pub(crate) webhooks: Webhooks,
    /// Encrypts secrets where they are stored.
    pub(crate) encryption: EncryptionKeys,
    pub(crate) acceptor: Arc<Acceptor>,
    pub(crate) permits: Arc<Permits>,
    pub(crate) limits: Arc<Limits>,
    /// For streams that are opened.
    pub(crate) openings: Openings,
    /// Where streams wait.
    pub(crate) event_loops: EventLoops,
    pub(crate) bins: Bins,
    /// For the bodies of requests.
    pub(crate) bodies: Room,
    pub(crate) readiness: Readiness,
    pub(crate) outage: Outage,
    /// Cancelled when the server stops.
    pub(crate) stopping: CancellationToken,
    /// When each stream must end with a `bye` then.
    pub(crate) farewell: Farewell,
    /// Cancelled when every open connection must be dropped.
    pub(crate) cutting_off: CancellationToken,
    /// Connections, streams and accepted requests that a stop waits for.
    pub(crate) tasks: TaskTracker,
}

pub(crate) type SharedApp = Arc<App>;
