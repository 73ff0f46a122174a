//! The one task that listens: it connects when there is a subscription, asks the server for its topics,
//! and reconnects when the connection breaks.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tidings_reconnect::{Reconnect, Timing};

use crate::broker::interest::Interest;
use crate::broker::remote::Remote;
use crate::panics::catch;
use crate::{Error, telemetry};

/// How connections to a server are made.
pub(crate) trait Link: Send + Sync + 'static {
    type Session: Session;

    /// Connects, or fails within a time of its own. What arrives is delivered under this number.
    fn connect(&self, number: u64) -> impl Future<Output = Result<Self::Session, Error>> + Send;
}

/// A connection that topics arrive on. Dropping it closes the connection.
pub(crate) trait Session: Send {
    type Arrival: Send;

    /// Waits for what has to be delivered, or for the connection to break.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Result<Self::Arrival, Error>> + Send;

    /// Delivers it.
    fn deliver(&mut self, arrival: Self::Arrival) -> impl Future<Output = ()> + Send;

    /// Asks the server for all of these, and fails when it does not reply in time. A server that refuses
    /// may have accepted some; asking for those again changes nothing.
    fn listen(&mut self, all: &[Interest]) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Asks the server to send nothing of these any more.
    fn unlisten(&mut self, all: &[Interest]) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Checks that the server replies, and is still the one to listen to.
    fn ping(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Why a command of a [`Session`] failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server refused; the connection stays usable.
    Refused(Error),
    /// The connection cannot be used any more.
    Broken(Error),
}

/// Listens for as long as it is polled. Dropping it, as a runtime does that ends, closes the broker: its subscriptions
/// would miss messages without a report.
pub(crate) fn keep_listening(
    link: impl Link,
    remote: Arc<Remote>,
    timing: Timing,
) -> impl Future<Output = ()> + Send {
    let open = Open(remote);
    async move { listen_again(&link, &open.0, timing).await }
}

struct Open(Arc<Remote>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn listen_again(link: &impl Link, remote: &Remote, timing: Timing) {
    let mut reconnect = Reconnect::new();
    let mut was_lost = false;
    loop {
        remote.wanted().await;
        let number = remote.begin();
        let connected = || {
            if std::mem::replace(&mut was_lost, true) {
                telemetry::reconnected();
            }
            if reconnect.connected() {
                catch(|| tracing::info!("restored the connection that listens for messages"));
            }
        };
        let listening = listen(link, remote, number, timing, connected);
        let ended = AssertUnwindSafe(listening).catch_unwind().await;
        let error = ended.unwrap_or_else(|_panic| {
            let error = Error::backend("a part of the program panicked");
            remote.refuse_all(&error);
            error
        });
        remote.end();
        if reconnect.failed() {
            let error: &dyn std::error::Error = &error;
            catch(|| {
                tracing::warn!(
                    error,
                    "lost the connection that listens for messages, reconnecting; what is published until then is missed"
                );
            });
        }
        reconnect.pause().await;
    }
}

/// Connects and listens until that fails.
async fn listen(
    link: &impl Link,
    remote: &Remote,
    number: u64,
    timing: Timing,
    connected: impl FnOnce() + Send,
) -> Error {
    let mut session = match open(link, remote, number).await {
        Ok(session) => session,
        Err(error) => {
            remote.refuse_all(&error);
            return error;
        }
    };
    connected();
    match serve(&mut session, remote, timing).await {
        Failure::Refused(error) | Failure::Broken(error) => error,
    }
}

/// Connects and asks for all topics and patterns that have subscriptions.
async fn open<L: Link>(link: &L, remote: &Remote, number: u64) -> Result<L::Session, Error> {
    let mut session = link.connect(number).await?;
    match follow(&mut session, remote).await {
        Ok(()) => Ok(session),
        Err(Failure::Refused(error) | Failure::Broken(error)) => Err(error),
    }
}

/// Serves a connection until it breaks.
async fn serve<S: Session>(session: &mut S, remote: &Remote, timing: Timing) -> Failure {
    let mut health = timing.health_checks();
    loop {
        let served = tokio::select! {
            arrival = session.next() => match arrival {
                Ok(arrival) => {
                    session.deliver(arrival).await;
                    Ok(())
                }
                Err(error) => Err(Failure::Broken(error)),
            },
            () = remote.changed() => follow(session, remote).await,
            _ = health.tick() => {
                remote.retry_refused();
                session.ping().await
            }
        };
        if let Err(failure) = served {
            return failure;
        }
    }
}

/// Sends the server what has changed.
async fn follow<S: Session>(session: &mut S, remote: &Remote) -> Result<(), Failure> {
    let changes = remote.take_changes();
    if !changes.leave.is_empty() {
        session.unlisten(&changes.leave).await?;
    }
    if changes.join.is_empty() {
        return Ok(());
    }
    match session.listen(&changes.join).await {
        Ok(()) => remote.confirm(&changes.join),
        Err(Failure::Broken(error)) => return Err(Failure::Broken(error)),
        Err(Failure::Refused(_)) => follow_one_by_one(session, remote, &changes.join).await?,
    }
    Ok(())
}

/// A refused topic must not take the others with it. However many are refused, that is one log line.
async fn follow_one_by_one<S: Session>(
    session: &mut S,
    remote: &Remote,
    join: &[Interest],
) -> Result<(), Failure> {
    let (mut refused, mut first) = (0, None);
    for interest in join {
        let one = std::slice::from_ref(interest);
        match session.listen(one).await {
            Ok(()) => remote.confirm(one),
            Err(Failure::Refused(error)) => {
                if remote.refuse(interest, &error) {
                    refused += 1;
                    first.get_or_insert((interest, error));
                }
            }
            Err(broken @ Failure::Broken(_)) => return Err(broken),
        }
    }
    if let Some((topic, error)) = first {
        let error: &dyn std::error::Error = &error;
        catch(|| {
            tracing::warn!(error, %topic, refused, "the server refuses to deliver some topics, their subscriptions get the error");
        });
    }
    Ok(())
}
