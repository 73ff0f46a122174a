//! The one task that listens: it connects when somebody has a topic, makes the server follow the
//! wish, and comes back when the connection breaks.

use std::sync::Arc;
use std::time::Duration;

use tidings_reconnect::Backoff;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::Error;
use crate::broker::interest::Interest;
use crate::broker::remote::Remote;

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

    /// Asks the server for all of these. One that refuses may have taken some; asking for those again
    /// changes nothing.
    fn listen(&mut self, all: &[Interest]) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Tells the server to send none of these any more.
    fn unlisten(&mut self, all: &[Interest]) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Answers once the server has.
    fn ping(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Why a command of a [`Session`] failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server said no; the connection is as good as before.
    Refused(Error),
    /// The connection is of no use any more.
    Broken(Error),
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// One command.
    pub(crate) answer: Duration,
    /// Between two looks whether a silent server is still there.
    pub(crate) health: Duration,
}

/// A connection that lasts for so long is no part of the trouble before it. One that breaks sooner is
/// made again after a longer pause, as if it had not come about: a server that takes every connection
/// and drops it would be flooded otherwise.
const STEADY: Duration = Duration::from_secs(10);

/// Listens for as long as it is polled.
pub(crate) async fn keep_listening(link: impl Link, remote: Arc<Remote>, timing: Timing) {
    let mut backoff = Backoff::new(fastrand::Rng::new());
    let mut connected = true;
    loop {
        remote.wanted().await;
        let number = remote.begin();
        let error = match open(&link, &remote, number, timing).await {
            Ok(mut session) => {
                if !connected {
                    tracing::info!("listens for messages again");
                }
                connected = true;
                let opened = Instant::now();
                let failure = serve(&mut session, &remote, timing).await;
                if opened.elapsed() >= STEADY {
                    backoff.reset();
                }
                match failure {
                    Failure::Refused(error) | Failure::Broken(error) => error,
                }
            }
            Err(error) => {
                remote.refuse_all(&error);
                error
            }
        };
        remote.end();
        // An outage is reported once, however many attempts it takes.
        if connected {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "does not hear messages until it is connected again");
        }
        connected = false;
        if let Some(pause) = backoff.next() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Connects and asks for all that somebody wants.
async fn open<L: Link>(
    link: &L,
    remote: &Remote,
    number: u64,
    timing: Timing,
) -> Result<L::Session, Error> {
    let mut session = link.connect(number).await?;
    match follow(&mut session, remote, timing).await {
        Ok(()) => Ok(session),
        Err(Failure::Refused(error) | Failure::Broken(error)) => Err(error),
    }
}

/// Serves a connection until it breaks.
async fn serve<S: Session>(session: &mut S, remote: &Remote, timing: Timing) -> Failure {
    let mut health = interval_at(Instant::now() + timing.health, timing.health);
    health.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let served = tokio::select! {
            arrival = session.next() => match arrival {
                Ok(arrival) => {
                    session.deliver(arrival).await;
                    Ok(())
                }
                Err(error) => Err(Failure::Broken(error)),
            },
            () = remote.changed() => follow(session, remote, timing).await,
            _ = health.tick() => {
                remote.retry_refused();
                command(timing, session.ping()).await
            }
        };
        if let Err(failure) = served {
            return failure;
        }
    }
}

/// Tells the server what has changed.
async fn follow<S: Session>(
    session: &mut S,
    remote: &Remote,
    timing: Timing,
) -> Result<(), Failure> {
    let changes = remote.take_changes();
    if !changes.leave.is_empty() {
        command(timing, session.unlisten(&changes.leave)).await?;
    }
    if changes.join.is_empty() {
        return Ok(());
    }
    match command(timing, session.listen(&changes.join)).await {
        Ok(()) => remote.confirm(&changes.join),
        Err(Failure::Broken(error)) => return Err(Failure::Broken(error)),
        Err(Failure::Refused(_)) => {
            // One that is not allowed must not take the others with it.
            for interest in &changes.join {
                let one = std::slice::from_ref(interest);
                match command(timing, session.listen(one)).await {
                    Ok(()) => remote.confirm(one),
                    Err(Failure::Refused(error)) => {
                        remote.refuse(interest, &error);
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(error, topic = %interest, "may not listen to a topic");
                    }
                    Err(broken @ Failure::Broken(_)) => return Err(broken),
                }
            }
        }
    }
    Ok(())
}

async fn command(
    timing: Timing,
    command: impl Future<Output = Result<(), Failure>> + Send,
) -> Result<(), Failure> {
    match timeout(timing.answer, command).await {
        Ok(done) => done,
        Err(elapsed) => Err(Failure::Broken(Error::backend(elapsed))),
    }
}
