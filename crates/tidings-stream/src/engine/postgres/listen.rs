//! Listening for what other processes publish.

use std::sync::Arc;

use tidings_postgres::{Config, Error, Listening};
use tidings_reconnect::Reconnect;
use tokio::time::timeout;

use super::announce::{self, News};
use super::outbox::Sequencer;
use crate::engine::Wakes;

/// Whom a notification wakes.
struct Listener {
    wakes: Wakes,
    sequencer: Sequencer,
    own: Arc<str>,
}

/// Listens for as long as it is polled, on one connection that is made again when it breaks.
pub(super) async fn keep_listening(
    config: Config,
    channel: String,
    wakes: Wakes,
    sequencer: Sequencer,
    own: Arc<str>,
) {
    let listener = Listener {
        wakes,
        sequencer,
        own,
    };
    let mut reconnect = Reconnect::new();
    loop {
        let error = match open(&config, &channel, &listener).await {
            Ok(mut listening) => {
                if reconnect.connected() {
                    tracing::info!("restored the notification connection to PostgreSQL (streams)");
                }
                // Notifications of the time in between are lost.
                listener.wakes.wake_all();
                listener.sequencer.look();
                serve(&mut listening, &config, &listener).await
            }
            Err(error) => error,
        };
        if reconnect.failed() {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(
                error,
                "lost the notification connection to PostgreSQL (streams), polling until it is back"
            );
        }
        reconnect.pause().await;
    }
}

async fn open(config: &Config, channel: &str, listener: &Listener) -> Result<Listening, Error> {
    let mut listening = config.listen().await?;
    // It takes no parameter. The channel is the database's own reply, letters, digits and `_`;
    // without the quotes, an upper-case letter would make it another one.
    let statement = format!("LISTEN \"{channel}\"");
    ask(&mut listening, config, &statement, listener).await?;
    Ok(listening)
}

/// Passes notifications on until the connection breaks.
async fn serve(listening: &mut Listening, config: &Config, listener: &Listener) -> Error {
    let mut health = config.timing().health_checks();
    loop {
        let served = tokio::select! {
            notification = listening.next() => {
                notification.map(|notification| listener.notify(notification.payload()))
            }
            _ = health.tick() => ask(listening, config, "", listener).await,
        };
        if let Err(error) = served {
            return error;
        }
    }
}

/// Runs a statement within the limit for a reply.
async fn ask(
    listening: &mut Listening,
    config: &Config,
    statement: &str,
    listener: &Listener,
) -> Result<(), Error> {
    let asked = listening.run(statement, |notification| {
        listener.notify(notification.payload());
        std::future::ready(())
    });
    timeout(config.reply_limit(), asked)
        .await
        .unwrap_or_else(|_elapsed| Err(Error::late()))
}

impl Listener {
    fn notify(&self, payload: &str) {
        match announce::read(payload, &self.own) {
            News::Streams(streams) => streams.iter().for_each(|stream| self.wakes.wake(stream)),
            News::All => self.wakes.wake_all(),
            News::Outbox => self.sequencer.look(),
            News::Nothing => {}
        }
    }
}
