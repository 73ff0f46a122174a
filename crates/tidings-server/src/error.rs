//! Why a server did not start.

use std::net::SocketAddr;

use tidings_notify::presence::PresenceError;
use tidings_storage::{DatabaseUrl, RedisUrl, StorageError};

use crate::access::AccessError;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system reported.
        source: std::io::Error,
    },
    /// The database cannot be opened or migrated.
    #[error("cannot use the database {database}")]
    Storage {
        /// Which database.
        database: DatabaseUrl,
        /// What the database reported.
        source: StorageError,
    },
    /// The Redis server cannot be used.
    #[error("cannot use the Redis server {url}")]
    Redis {
        /// Which server.
        url: RedisUrl,
        /// What it reported.
        source: PresenceError,
    },
    /// The keys of callers cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Who is online cannot be kept.
    #[error("cannot start presence")]
    Presence(#[from] PresenceError),
    /// The operating system gives no way to watch the sockets of streams, such as for lack of file descriptors.
    #[error("cannot watch the sockets of streams")]
    EventLoops(#[source] std::io::Error),
    /// The sending of webhooks cannot be started.
    #[error("cannot start sending webhooks")]
    Webhooks(#[from] tidings_webhooks::Error),
}
