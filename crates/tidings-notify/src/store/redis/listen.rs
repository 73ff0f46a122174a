//! Listening for wake-ups on one channel.

use tidings_reconnect::Reconnect;
use tidings_redis::redis::aio::MultiplexedConnection;
use tidings_redis::redis::{PushInfo, PushKind, Value};
use tidings_redis::{Config, Connection, Error};
use tokio::sync::watch;

use crate::{Wake, WakeSender};

/// Listens on a channel.
pub(super) struct Listener<R> {
    pub(super) config: Config,
    pub(super) channel: String,
    /// Reads the hints of a message.
    pub(super) read: R,
    pub(super) wakes: WakeSender,
    /// The connection, while it is there.
    pub(super) connected: watch::Sender<Option<MultiplexedConnection>>,
}

impl<R: Fn(&str) -> Vec<Wake> + Clone + Send + Sync + 'static> Listener<R> {
    /// Listens for as long as it is polled, on one connection that is made again when it breaks. Without
    /// one, the sweep finds what has changed.
    pub(super) async fn run(self) {
        let mut reconnect = Reconnect::new();
        loop {
            let error = match self.open().await {
                Ok(connection) => {
                    if reconnect.connected() {
                        tracing::info!(
                            "restored the notification connection to Redis (notifications)"
                        );
                    }
                    self.connected.send_replace(Some(connection.multiplexed()));
                    // Those of the time in between are lost.
                    self.wakes.send(Wake::Lost);
                    let error = connection.unusable(&self.config).await;
                    self.connected.send_replace(None);
                    error
                }
                Err(error) => Some(error),
            };
            if reconnect.failed() {
                tracing::warn!(
                    error = error.as_ref().map(|error| error as &dyn std::error::Error),
                    "lost the notification connection to Redis (notifications), polling until it is back"
                );
            }
            reconnect.pause().await;
        }
    }

    /// Connects and subscribes to the channel.
    async fn open(&self) -> Result<Connection, Error> {
        let (wakes, read) = (self.wakes.clone(), self.read.clone());
        let hear = move |info| {
            for wake in message(info).as_deref().map(&read).unwrap_or_default() {
                wakes.send(wake);
            }
        };
        let connection = self.config.connect(hear).await?;
        connection.multiplexed().subscribe(&self.channel).await?;
        Ok(connection)
    }
}

/// The text of a message; nothing if it is something else.
fn message(info: PushInfo) -> Option<String> {
    if info.kind != PushKind::Message {
        return None;
    }
    match info.data.into_iter().nth(1) {
        Some(Value::BulkString(text)) => String::from_utf8(text).ok(),
        _ => None,
    }
}
