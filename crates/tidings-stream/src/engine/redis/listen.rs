//! Listening for what streams get, from this process or another.
//!
//! The scripts themselves publish the name of a stream that has something new, on one channel for
//! all streams, so that a wake-up can come neither before its message nor without it. They do so only if a
//! consumer waits: a stream whose consumers are all at work costs no process anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use tidings_reconnect::Reconnect;
use tidings_redis::redis::{PushInfo, PushKind, Value};
use tidings_redis::{Config, Connection, Error};

use crate::StreamName;
use crate::engine::Wakes;

/// Whom a notification wakes.
#[derive(Debug, Default)]
pub(super) struct Listener {
    wakes: Wakes,
    /// Whether notifications arrive here at present.
    is_listening: AtomicBool,
}

impl Listener {
    pub(super) fn wakes(&self) -> &Wakes {
        &self.wakes
    }

    /// Wakes this process for its own change, unless a notification will.
    pub(super) fn wake_unless_listening(&self, stream: &StreamName) {
        if !self.is_listening.load(Ordering::Relaxed) {
            self.wakes.wake(stream);
        }
    }

    fn notify(&self, info: PushInfo) {
        if info.kind != PushKind::Message {
            return;
        }
        if let Some(Value::BulkString(name)) = info.data.into_iter().nth(1)
            && let Ok(name) = str::from_utf8(&name)
            && let Ok(stream) = name.parse()
        {
            self.wakes.wake(&stream);
        }
    }
}

/// Connects and subscribes to the channel.
async fn listen(
    config: &Config,
    channel: &str,
    listener: &Arc<Listener>,
) -> Result<Connection, Error> {
    let weak = Arc::downgrade(listener);
    let connection = config
        .connect(move |info| {
            if let Some(listener) = Weak::upgrade(&weak) {
                listener.notify(info);
            }
        })
        .await?;
    connection.multiplexed().subscribe(channel).await?;
    listener.is_listening.store(true, Ordering::Relaxed);
    Ok(connection)
}

/// Listens for as long as it is polled, on one connection that is made again when it breaks. Without
/// one, consumers poll.
pub(super) async fn keep_listening(config: Config, channel: String, listener: Arc<Listener>) {
    let mut reconnect = Reconnect::new();
    loop {
        let error = match listen(&config, &channel, &listener).await {
            Ok(connection) => {
                if reconnect.connected() {
                    tracing::info!("restored the notification connection to Redis (streams)");
                }
                // Notifications of the time in between are lost.
                listener.wakes.wake_all();
                let error = connection.unusable(&config).await;
                listener.is_listening.store(false, Ordering::Relaxed);
                // Notifications are lost from now on. Consumers that were woken a moment ago may have
                // looked too early.
                listener.wakes.wake_all();
                error
            }
            Err(error) => Some(error),
        };
        if reconnect.failed() {
            tracing::warn!(
                error = error.as_ref().map(|error| error as &dyn std::error::Error),
                "lost the notification connection to Redis (streams), polling until it is back"
            );
        }
        reconnect.pause().await;
    }
}
