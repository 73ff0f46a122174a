//! Listening for what streams get, from this process or another.
//!
//! The scripts themselves publish the name of a stream that has something new, on one channel for
//! all streams, so that a wake-up can come neither before its message nor without it. They do so only if a
//! consumer waits: a stream whose consumers are all at work costs no process anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidings_redis::{Config, Heard};

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
}

/// Listens for as long as it is polled. Without a connection, consumers poll.
pub(super) async fn keep_listening(config: Config, channel: String, listener: Arc<Listener>) {
    let hear = move |heard: Heard<'_>| match heard {
        // Notifications of the time in between are lost.
        Heard::Connected(_) => {
            listener.is_listening.store(true, Ordering::Relaxed);
            listener.wakes.wake_all();
        }
        Heard::Message(name) => {
            if let Ok(stream) = name.parse() {
                listener.wakes.wake(&stream);
            }
        }
        // Consumers that were woken a moment ago may have looked too early.
        Heard::Disconnected => {
            listener.is_listening.store(false, Ordering::Relaxed);
            listener.wakes.wake_all();
        }
    };
    match config.keep_listening(&channel, "streams", hear).await {}
}
