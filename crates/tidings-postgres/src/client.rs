use std::fmt;
use std::ops::Deref;

use tidings_reconnect::Connection as _;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Connection;

/// An open connection, with the task that reads from it and writes to it. Dropping it closes the
/// connection.
///
/// It is the [`tokio_postgres::Client`]: statements that are sent before others were answered are
/// pipelined.
pub struct Client {
    client: tokio_postgres::Client,
    _driver: AbortOnDropHandle<()>,
}

pub(crate) fn drive(client: tokio_postgres::Client, connection: Connection) -> Client {
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            let error: &dyn std::error::Error = &error;
            tracing::debug!(error, "a connection to PostgreSQL broke");
        }
    });
    Client {
        client,
        _driver: AbortOnDropHandle::new(driver),
    }
}

impl tidings_reconnect::Connection for Client {
    fn is_broken(&self) -> bool {
        self.client.is_closed()
    }
}

impl Deref for Client {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &tokio_postgres::Client {
        &self.client
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("is_broken", &self.is_broken())
            .finish_non_exhaustive()
    }
}
