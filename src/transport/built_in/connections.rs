//! The open connections, and which request gets which.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::borrowed::{BorrowedConnection, Home};
use super::connection::{Http1, Http2};
use super::kept::{Bounds, Found, Kept, Left, Origin};

/// How often idle connections are looked at: whether they have been idle for too long, or were
/// closed by the other side.
const SWEEP: Duration = Duration::from_secs(1);

type KeptConnections = Kept<Box<Http1>, Arc<Http2>>;
type LeftConnection = Left<Box<Http1>, Arc<Http2>>;

/// All connections of a transport. Clones are the same ones.
#[derive(Debug, Clone)]
pub(super) struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner(Mutex<State>);

#[derive(Debug)]
struct State {
    kept: KeptConnections,
    /// Runs while connections are kept, and ends with its runtime. Started and ended under the same lock
    /// as what is kept changes, so that no connection is left without one.
    sweeper: Option<AbortOnDropHandle<()>>,
}

impl Connections {
    pub(super) fn new(bounds: Bounds) -> Self {
        let state = State {
            kept: Kept::new(bounds),
            sweeper: None,
        };
        Self(Arc::new(Inner(Mutex::new(state))))
    }

    /// Lends a connection that was kept. It may have ended: then nothing is sent over it.
    pub(super) fn take(&self, origin: &Origin) -> Option<BorrowedConnection> {
        let found = self.0.lock().kept.take(origin)?;
        let home = self.home(origin);
        Some(match found {
            Found::Unshared(connection) => BorrowedConnection::of_http1(connection, home, true),
            Found::Shared(connection, users) => {
                BorrowedConnection::of_http2(connection, users, home, true)
            }
        })
    }

    /// Lends a new connection of HTTP/1.
    pub(super) fn lend(&self, origin: &Origin, connection: Http1) -> BorrowedConnection {
        BorrowedConnection::of_http1(Box::new(connection), self.home(origin), false)
    }

    /// Lends a new connection of HTTP/2, which other requests may share.
    pub(super) fn share(&self, origin: &Origin, connection: Http2) -> BorrowedConnection {
        let (connection, now) = (Arc::new(connection), Instant::now());
        self.change(|kept| kept.share(origin, Arc::clone(&connection), now));
        BorrowedConnection::of_http2(connection, 1, self.home(origin), false)
    }

    /// Keeps a connection that no request uses.
    pub(super) fn put(&self, origin: &Origin, connection: Box<Http1>) {
        let now = Instant::now();
        self.change(|kept| kept.put(origin, connection, now));
    }

    /// A request no longer uses a shared connection.
    pub(super) fn leave(&self, origin: &Origin, connection: &Arc<Http2>) {
        let now = Instant::now();
        self.change(|kept| kept.leave(origin, connection, now));
    }

    /// Lets no more requests use a shared connection.
    pub(super) fn discard(&self, origin: &Origin, connection: &Arc<Http2>) {
        self.change(|kept| Vec::from_iter(kept.discard(origin, connection)));
    }

    /// Closes every connection that no request uses.
    pub(super) fn close_idle(&self) {
        self.change(|kept| kept.take_excess(0));
    }

    /// Changes what is kept, and drops what left without the lock: that may run code of the
    /// caller's.
    fn change(&self, change: impl FnOnce(&mut KeptConnections) -> Vec<LeftConnection>) {
        let left = {
            let mut state = self.0.lock();
            let left = change(&mut state.kept);
            let sweeper = state.sweeper.as_ref();
            let is_swept = sweeper.is_some_and(|sweeper| !sweeper.is_finished());
            // A connection may be given back after its runtime has ended: the next one that is kept
            // starts a sweeper.
            if !is_swept
                && !state.kept.is_empty()
                && let Ok(runtime) = Handle::try_current()
            {
                let sweeper = runtime.spawn(sweep(Arc::downgrade(&self.0)).boxed());
                state.sweeper = Some(AbortOnDropHandle::new(sweeper));
            }
            left
        };
        drop(left);
    }

    fn home(&self, origin: &Origin) -> Home {
        Home {
            connections: self.clone(),
            origin: origin.clone(),
        }
    }
}

impl Inner {
    /// Closes what is of no more use. Returns the handle of the sweeper if nothing is left: it has to end.
    fn sweep(&self) -> ControlFlow<Option<AbortOnDropHandle<()>>> {
        let now = Instant::now();
        let (expired, mut suspects) = {
            let mut state = self.lock();
            let expired = state.kept.take_expired(now);
            let until = now.checked_sub(SWEEP);
            let suspects = until.map(|until| state.kept.take_suspects(until));
            (expired, suspects.unwrap_or_default())
        };
        drop(expired);
        // Without the lock, because a tracing layer may be called.
        suspects.retain_mut(|suspect| suspect.connection().check());
        let mut state = self.lock();
        state.kept.restore(suspects);
        if state.kept.is_empty() {
            ControlFlow::Break(state.sweeper.take())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn sweep(connections: Weak<Inner>) {
    loop {
        sleep(SWEEP).await;
        let Some(connections) = connections.upgrade() else {
            return;
        };
        // However many there are, each is looked at.
        if unconstrained(async { connections.sweep() })
            .await
            .is_break()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise a connection that is kept before the task has ended would have no sweeper.
    #[tokio::test]
    async fn a_sweeper_with_nothing_left_to_sweep_is_given_up_in_the_same_step() {
        let connections = Connections::new(Bounds {
            max_idle: 1,
            max_idle_per_origin: 1,
            idle_timeout: SWEEP,
        });
        let running = tokio::spawn(std::future::pending());
        connections.0.lock().sweeper = Some(AbortOnDropHandle::new(running));
        assert!(connections.0.sweep().is_break());
        assert!(connections.0.lock().sweeper.is_none());
    }
}
