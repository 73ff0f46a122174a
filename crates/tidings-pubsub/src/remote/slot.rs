use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Error;

/// A connection that is made when it is needed, and made again when it is broken. All share it, and
/// one attempt to connect serves all who wait for it.
pub(crate) struct Slot<C> {
    state: Mutex<State<C>>,
    /// Held by who connects.
    connecting: tokio::sync::Mutex<()>,
}

struct State<C> {
    connection: Option<Arc<C>>,
    /// How many attempts have failed, and how the last one did.
    failures: u64,
    failure: Option<Error>,
}

/// What a [`Slot`] has to know of a connection.
pub(crate) trait Connection: Send + Sync {
    /// Whether it is known to be broken.
    fn is_broken(&self) -> bool;
}

impl<C: Connection> Slot<C> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                connection: None,
                failures: 0,
                failure: None,
            }),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    /// The connection, made by `connect` when there is none that works.
    pub(crate) async fn connection<F>(
        &self,
        connect: impl FnOnce() -> F + Send,
    ) -> Result<Arc<C>, Error>
    where
        F: Future<Output = Result<C, Error>> + Send,
    {
        let failures = match self.look() {
            Ok(connection) => return Ok(connection),
            Err(failures) => failures,
        };
        let _connecting = self.connecting.lock().await;
        match self.look() {
            Ok(connection) => return Ok(connection),
            Err(now) if now != failures => {
                // The attempt that it waited for has failed, and another one now would not fare
                // better.
                if let Some(error) = self.lock().failure.clone() {
                    return Err(error);
                }
            }
            Err(_) => {}
        }
        // Connecting is rare and its future large; every call would have room for it otherwise.
        match Box::pin(connect()).await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                self.lock().connection = Some(Arc::clone(&connection));
                Ok(connection)
            }
            Err(error) => {
                let mut state = self.lock();
                state.failures += 1;
                state.failure = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Gives up this connection, if it is still the one.
    pub(crate) fn discard(&self, connection: &Arc<C>) {
        let discarded = self
            .lock()
            .connection
            .take_if(|current| Arc::ptr_eq(current, connection));
        drop(discarded);
    }

    /// Gives up the connection.
    pub(crate) fn clear(&self) {
        let discarded = self.lock().connection.take();
        drop(discarded);
    }

    /// The connection, or how many attempts have failed when there is none.
    fn look(&self) -> Result<Arc<C>, u64> {
        let state = self.lock();
        match &state.connection {
            Some(connection) if !connection.is_broken() => Ok(Arc::clone(connection)),
            _ => Err(state.failures),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<C>> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> fmt::Debug for Slot<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}
