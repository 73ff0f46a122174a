//! Listening for what other processes have changed.

use std::sync::Arc;

use tidings_postgres::{Config, Heard};

use crate::store::message;
use crate::{Wake, WakeSender};

/// Listens for as long as it is polled. Notifications of the sender `own` are ignored.
pub(super) async fn keep_listening(
    config: Config,
    channel: String,
    wakes: WakeSender,
    own: Arc<str>,
) {
    let hear = |heard: Heard<'_>| match heard {
        // Notifications of the time in between are lost. If the server has crashed, it gives the numbers of transactions
        // again that were in a mark already.
        Heard::Connected => wakes.send(Wake::Reconnected),
        Heard::Notification(payload) => {
            for wake in message::read(payload, &own) {
                wakes.send(wake);
            }
        }
    };
    match config.keep_listening(&channel, "notifications", hear).await {}
}
