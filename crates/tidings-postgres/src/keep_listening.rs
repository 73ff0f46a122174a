//! One connection that listens on a channel, and is made again when it breaks.

use std::convert::Infallible;

use tidings_reconnect::Reconnect;
use tokio::time::timeout;

use crate::{Config, Error, Listening};

/// What one that listens hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard<'a> {
    /// The connection is there, and was not until now: earlier notifications are lost.
    Connected,
    /// The payload of a notification.
    Notification(&'a str),
}

impl Config {
    /// Listens on a channel for as long as it is polled, and calls `hear` with what arrives. `what` says in
    /// the log what the notifications are about.
    ///
    /// The name of the channel stands in a statement between quotes, and must have none.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub async fn keep_listening(
        &self,
        channel: &str,
        what: &str,
        hear: impl Fn(Heard<'_>) + Send + Sync,
    ) -> Infallible {
        let mut reconnect = Reconnect::new();
        loop {
            let error = match self.subscribe(channel, &hear).await {
                Ok(mut listening) => {
                    if reconnect.connected() {
                        tracing::info!(
                            "restored the notification connection to PostgreSQL ({what})"
                        );
                    }
                    hear(Heard::Connected);
                    self.pass_on(&mut listening, &hear).await
                }
                Err(error) => error,
            };
            if reconnect.failed() {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(
                    error,
                    "lost the notification connection to PostgreSQL ({what}), polling until it is back"
                );
            }
            reconnect.pause().await;
        }
    }

    async fn subscribe(
        &self,
        channel: &str,
        hear: &(impl Fn(Heard<'_>) + Send + Sync),
    ) -> Result<Listening, Error> {
        let mut listening = self.listen().await?;
        // It takes no parameter; without the quotes, an upper-case letter would make it another one.
        let statement = format!("LISTEN \"{channel}\"");
        self.ask(&mut listening, &statement, hear).await?;
        Ok(listening)
    }

    /// Passes notifications on until the connection breaks.
    async fn pass_on(
        &self,
        listening: &mut Listening,
        hear: &(impl Fn(Heard<'_>) + Send + Sync),
    ) -> Error {
        let mut health = self.timing().health_checks();
        loop {
            let served = tokio::select! {
                notification = listening.next() => notification
                    .map(|notification| hear(Heard::Notification(notification.payload()))),
                _ = health.tick() => self.ask(listening, "", hear).await,
            };
            if let Err(error) = served {
                return error;
            }
        }
    }

    /// Runs a statement within the limit for a reply.
    async fn ask(
        &self,
        listening: &mut Listening,
        statement: &str,
        hear: &(impl Fn(Heard<'_>) + Send + Sync),
    ) -> Result<(), Error> {
        let asked = listening.run(statement, |notification| {
            hear(Heard::Notification(notification.payload()));
            std::future::ready(())
        });
        timeout(self.reply_limit(), asked)
            .await
            .unwrap_or_else(|_elapsed| Err(Error::late()))
    }
}
