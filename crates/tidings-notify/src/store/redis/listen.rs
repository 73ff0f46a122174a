//! Listening for wake-ups, which the scripts publish on one channel.

use tidings_reconnect::Reconnect;
use tidings_redis::redis::{PushInfo, PushKind, Value};
use tidings_redis::{Config, Connection, Error};

use crate::{UserId, Wake, WakeSender};

/// Listens for as long as it is polled, on one connection that is made again when it breaks. Without one,
/// the sweep finds what has changed.
pub(super) async fn keep_listening(config: Config, channel: String, wakes: WakeSender) {
    let mut reconnect = Reconnect::new();
    loop {
        let error = match listen(&config, &channel, &wakes).await {
            Ok(connection) => {
                if reconnect.connected() {
                    tracing::info!("restored the notification connection");
                }
                // Those of the time in between are lost.
                wakes.send(Wake::Lost);
                broken(&connection, &config).await
            }
            Err(error) => Some(error),
        };
        if reconnect.failed() {
            tracing::warn!(
                error = error.as_ref().map(|error| error as &dyn std::error::Error),
                "lost the notification connection, falling back to polling"
            );
        }
        reconnect.pause().await;
    }
}

/// Connects and subscribes to the channel.
async fn listen(config: &Config, channel: &str, wakes: &WakeSender) -> Result<Connection, Error> {
    let wakes = wakes.clone();
    let connection = config.connect(move |info| notify(&wakes, info)).await?;
    connection.multiplexed().subscribe(channel).await?;
    Ok(connection)
}

fn notify(wakes: &WakeSender, info: PushInfo) {
    if info.kind == PushKind::Message
        && let Some(Value::BulkString(names)) = info.data.into_iter().nth(1)
        && let Ok(names) = str::from_utf8(&names)
    {
        for user in names.lines().filter_map(|name| UserId::stored(name).ok()) {
            wakes.send(Wake::Changed(user));
        }
    }
}

/// Waits until the connection breaks, or its server is no longer the primary, and returns why if that is
/// known.
async fn broken(connection: &Connection, config: &Config) -> Option<Error> {
    let mut health = config.timing().health_checks();
    loop {
        tokio::select! {
            () = connection.broken() => return None,
            _ = health.tick() => {
                if let Err(error) = connection.ping().await {
                    return Some(error);
                }
            }
        }
    }
}
