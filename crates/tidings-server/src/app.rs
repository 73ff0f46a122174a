//! What every handler shares.

use std::sync::Arc;

use tidings_notify::Notifier;
use tidings_sqlite::Database;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept::Acceptor;
use crate::config::Config;
use crate::dispatch::Dispatcher;
use crate::health::Readiness;
use crate::permits::Permits;

/// The parts of a running server, as its handlers see them.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) database: Database,
    pub(crate) notifier: Notifier,
    pub(crate) acceptor: Acceptor,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) permits: Arc<Permits>,
    pub(crate) readiness: Readiness,
    /// Cancelled when streams must end with a `bye`.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when every open connection must be dropped.
    pub(crate) cutting_off: CancellationToken,
    /// Connections, streams and accepted requests that a stop waits for.
    pub(crate) tasks: TaskTracker,
}

pub(crate) type SharedApp = Arc<App>;
