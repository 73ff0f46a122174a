//! One connection that listens on a channel, and is made again when it breaks.

use std::convert::Infallible;
use std::sync::Arc;

use redis::{PushInfo, PushKind, Value};
use tidings_reconnect::Reconnect;

use crate::{Config, Connection, Error};

/// What one that listens hears.
#[derive(Debug)]
pub enum Heard<'a> {
    /// The connection is there, and was not until now: earlier messages are lost.
    Connected(&'a Connection),
    /// A message.
    Message(&'a str),
    /// The connection is gone: messages are lost from now on.
    Disconnected,
}

impl Config {
    /// Listens on a channel for as long as it is polled, and calls `hear` with what arrives; it must not wait.
    /// `what` says in the log what the messages are about.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub async fn keep_listening(
        &self,
        channel: &str,
        what: &str,
        hear: impl Fn(Heard<'_>) + Send + Sync + 'static,
    ) -> Infallible {
        let hear = Arc::new(hear);
        let mut reconnect = Reconnect::new();
        loop {
            let error = match self.subscribe(channel, &hear).await {
                Ok(connection) => {
                    if reconnect.connected() {
                        tracing::info!("restored the notification connection to Redis ({what})");
                    }
                    hear(Heard::Connected(&connection));
                    let error = connection.unusable(self).await;
                    hear(Heard::Disconnected);
                    error
                }
                Err(error) => Some(error),
            };
            if reconnect.failed() {
                tracing::warn!(
                    error = error.as_ref().map(|error| error as &dyn std::error::Error),
                    "lost the notification connection to Redis ({what}), polling until it is back"
                );
            }
            reconnect.pause().await;
        }
    }

    async fn subscribe(
        &self,
        channel: &str,
        hear: &Arc<impl Fn(Heard<'_>) + Send + Sync + 'static>,
    ) -> Result<Connection, Error> {
        // It may hold the connection, which would keep itself open then.
        let hear = Arc::downgrade(hear);
        let push = move |info: PushInfo| {
            if info.kind == PushKind::Message
                && let Some(hear) = hear.upgrade()
                && let Some(Value::BulkString(text)) = info.data.get(1)
                && let Ok(text) = str::from_utf8(text)
            {
                hear(Heard::Message(text));
            }
        };
        let connection = self.connect(push).await?;
        connection.multiplexed().subscribe(channel).await?;
        Ok(connection)
    }
}
