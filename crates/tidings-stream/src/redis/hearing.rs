//! Hearing of what streams get, from this process or another.
//!
//! The scripts themselves publish the name of a stream that has something new, on one channel for
//! all, so that a wake-up can neither come before what it tells of nor without it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use tidings_reconnect::Backoff;
use tidings_redis::redis::{PushInfo, PushKind, Value, cmd};
use tidings_redis::{Config, Connection, Error};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::StreamName;
use crate::engine::Wakes;

/// Who is to hear.
#[derive(Debug, Default)]
pub(super) struct Ears {
    wakes: Wakes,
    /// Whether what is published is heard here.
    hears: AtomicBool,
}

impl Ears {
    pub(super) fn wakes(&self) -> &Wakes {
        &self.wakes
    }

    /// Wakes this process for something that it has done itself, unless it hears of it anyway.
    pub(super) fn wake_unheard(&self, stream: &StreamName) {
        if !self.hears.load(Ordering::Relaxed) {
            self.wakes.wake(stream);
        }
    }

    fn hear(&self, info: PushInfo) {
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
pub(super) async fn listen(
    config: &Config,
    channel: &str,
    ears: &Arc<Ears>,
) -> Result<Connection, Error> {
    let hearing = Arc::downgrade(ears);
    let connection = config
        .connect(move |info| {
            if let Some(ears) = Weak::upgrade(&hearing) {
                ears.hear(info);
            }
        })
        .await?;
    connection.multiplexed().subscribe(channel).await?;
    ears.hears.store(true, Ordering::Relaxed);
    Ok(connection)
}

/// Listens for as long as it is polled, on one connection that is made again when it breaks.
pub(super) async fn keep_listening(
    mut connection: Connection,
    config: Config,
    channel: String,
    ears: Arc<Ears>,
) {
    let mut backoff = Backoff::new(fastrand::Rng::new());
    loop {
        let error = broken(&connection, &config).await;
        ears.hears.store(false, Ordering::Relaxed);
        // Whatever is told from now on is not heard. Also those who were woken a moment ago may have
        // looked too early.
        ears.wakes.wake_all();
        drop(connection);
        // An outage is reported once, however many attempts it takes.
        tracing::warn!(
            error = error.as_ref().map(|error| error as &dyn std::error::Error),
            "finds other processes' messages by polling alone"
        );
        connection = loop {
            if let Some(pause) = backoff.next() {
                tokio::time::sleep(pause).await;
            }
            match listen(&config, &channel, &ears).await {
                Ok(connection) => break connection,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::debug!(error, "still does not hear of other processes' messages");
                }
            }
        };
        backoff.reset();
        tracing::info!("hears of other processes' messages again");
        // Whatever came in between is not going to be told again.
        ears.wakes.wake_all();
    }
}

/// Waits until the connection breaks, and answers why when that is known.
async fn broken(connection: &Connection, config: &Config) -> Option<Error> {
    let interval = config.health_interval();
    let mut health = interval_at(Instant::now() + interval, interval);
    health.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = connection.broken() => return None,
            _ = health.tick() => {
                let ping = cmd("PING");
                let answered = ping.exec_async(&mut connection.multiplexed()).await;
                if let Err(error) = answered.map_err(Error::from)
                    && error.may_have_been_done()
                {
                    return Some(error);
                }
            }
        }
    }
}
