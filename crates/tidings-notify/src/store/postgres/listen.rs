//! Listening for what other processes have changed.

use std::sync::Arc;

use tidings_postgres::{Config, Error, Listening};
use tidings_reconnect::Reconnect;
use tokio::time::timeout;

use crate::store::message;
use crate::{Wake, WakeSender};

/// Whom a notification wakes.
pub(super) struct Listener {
    pub(super) config: Config,
    pub(super) channel: String,
    pub(super) wakes: WakeSender,
    /// The sender whose notifications are one's own.
    pub(super) own: Arc<str>,
}

impl Listener {
    /// Listens for as long as it is polled, on one connection that is made again when it breaks.
    pub(super) async fn run(self) {
        let mut reconnect = Reconnect::new();
        loop {
            let error = match self.open().await {
                Ok(mut listening) => {
                    if reconnect.connected() {
                        tracing::info!(
                            "restored the notification connection to PostgreSQL (notifications)"
                        );
                    }
                    // Notifications of the time in between are lost.
                    self.wakes.send(Wake::Lost);
                    self.serve(&mut listening).await
                }
                Err(error) => error,
            };
            if reconnect.failed() {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(
                    error,
                    "lost the notification connection to PostgreSQL (notifications), polling until it is back"
                );
            }
            reconnect.pause().await;
        }
    }

    async fn open(&self) -> Result<Listening, Error> {
        let mut listening = self.config.listen().await?;
        // It takes no parameter. The channel is the database's own reply, letters, digits and `_`.
        let statement = format!("LISTEN \"{}\"", self.channel);
        self.ask(&mut listening, &statement).await?;
        Ok(listening)
    }

    /// Passes notifications on until the connection breaks.
    async fn serve(&self, listening: &mut Listening) -> Error {
        let mut health = self.config.timing().health_checks();
        loop {
            let served = tokio::select! {
                notification = listening.next() => {
                    notification.map(|notification| self.wake(notification.payload()))
                }
                _ = health.tick() => self.ask(listening, "").await,
            };
            if let Err(error) = served {
                return error;
            }
        }
    }

    /// Runs a statement within the limit for a reply.
    async fn ask(&self, listening: &mut Listening, statement: &str) -> Result<(), Error> {
        let asked = listening.run(statement, |notification| {
            self.wake(notification.payload());
            std::future::ready(())
        });
        timeout(self.config.reply_limit(), asked)
            .await
            .unwrap_or_else(|_elapsed| Err(Error::late()))
    }

    fn wake(&self, payload: &str) {
        for wake in message::read(payload, &self.own) {
            self.wakes.send(wake);
        }
    }
}
