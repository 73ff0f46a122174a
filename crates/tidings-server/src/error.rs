//! Errors for people: why a server did not start, and any error as one line of text.

use std::net::SocketAddr;

use crate::storage::{DatabaseUrl, StorageError};

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
    /// Who is online cannot be kept.
    #[error("cannot start presence")]
    Presence(#[from] tidings_notify::presence::PresenceError),
    /// The sending of webhooks cannot be started.
    #[error("cannot start sending webhooks")]
    Webhooks(#[from] tidings_webhooks::Error),
}

/// Writes an error and its causes on one line: `error: cause: cause of the cause`.
pub fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
