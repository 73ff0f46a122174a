//! Listening for wake-ups on one channel.

use tidings_redis::redis::aio::MultiplexedConnection;
use tidings_redis::{Config, Heard};
use tokio::sync::watch;

use crate::{Wake, WakeSender};

/// Listens for as long as it is polled. `read` reads the hints of a message; `connected` gets the connection
/// while it is there. Without one, the sweep finds what has changed.
pub(super) async fn keep_listening(
    config: Config,
    channel: String,
    read: impl Fn(&str) -> Vec<Wake> + Send + Sync + 'static,
    wakes: WakeSender,
    connected: watch::Sender<Option<MultiplexedConnection>>,
) {
    let hear = move |heard: Heard<'_>| match heard {
        Heard::Connected(connection) => {
            connected.send_replace(Some(connection.multiplexed()));
            // Those of the time in between are lost.
            wakes.send(Wake::Lost);
        }
        Heard::Message(text) => read(text).into_iter().for_each(|wake| wakes.send(wake)),
        Heard::Disconnected => drop(connected.send_replace(None)),
    };
    match config.keep_listening(&channel, "notifications", hear).await {}
}
