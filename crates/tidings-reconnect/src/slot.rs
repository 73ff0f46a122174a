use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A connection that is made when it is needed, and made again when it broke. All callers share it, and
/// one attempt to connect serves all who wait for it.
pub struct Slot<C, E> {
    state: Mutex<State<C, E>>,
    /// Held while a caller connects.
    connecting: tokio::sync::Mutex<()>,
}

struct State<C, E> {
    connection: Option<Arc<C>>,
    /// How many attempts have failed, and how the last one did.
    failures: u64,
    failure: Option<E>,
}

/// A connection, as a [`Slot`] sees it.
pub trait Breakable: Send + Sync {
    /// Whether it is known to be broken.
    fn is_broken(&self) -> bool;
}

impl<C, E> Slot<C, E> {
    /// A slot without a connection.
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State {
                connection: None,
                failures: 0,
                failure: None,
            }),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    /// Drops this connection, if the slot still has it. Callers that use it may continue with it.
    pub fn discard(&self, connection: &Arc<C>) {
        let discarded = self
            .lock()
            .connection
            .take_if(|current| Arc::ptr_eq(current, connection));
        drop(discarded);
    }

    /// Drops the connection. The next call makes another.
    pub fn clear(&self) {
        let discarded = self.lock().connection.take();
        drop(discarded);
    }

    fn lock(&self) -> MutexGuard<'_, State<C, E>> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Breakable, E: Clone + Send> Slot<C, E> {
    /// The connection, made by `connect` when none works.
    ///
    /// # Errors
    ///
    /// The error of `connect`, which may have been the attempt of another caller.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up its own attempt; callers that wait for it begin another.
    pub async fn connection<F>(&self, connect: impl FnOnce() -> F + Send) -> Result<Arc<C>, E>
    where
        F: Future<Output = Result<C, E>> + Send,
    {
        let failures = match self.look() {
            Ok(connection) => return Ok(connection),
            Err(failures) => failures,
        };
        let _connecting = self.connecting.lock().await;
        match self.look() {
            Ok(connection) => return Ok(connection),
            Err(now) if now != failures => {
                // The attempt that it waited for has failed, and another one now would fail as well.
                if let Some(error) = self.lock().failure.clone() {
                    return Err(error);
                }
            }
            Err(_) => {}
        }
        // Connecting is rare and its future large; every call would reserve room for it otherwise.
        match Box::pin(connect()).await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                let mut state = self.lock();
                let broken = state.connection.replace(Arc::clone(&connection));
                drop(state);
                drop(broken);
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

    /// The connection, or how many attempts have failed when there is none.
    fn look(&self) -> Result<Arc<C>, u64> {
        let state = self.lock();
        match &state.connection {
            Some(connection) if !connection.is_broken() => Ok(Arc::clone(connection)),
            _ => Err(state.failures),
        }
    }
}

impl<C, E> Default for Slot<C, E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C, E> fmt::Debug for Slot<C, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    #[derive(Debug, Default)]
    struct Wire {
        is_cut: AtomicBool,
    }

    impl Breakable for Wire {
        fn is_broken(&self) -> bool {
            self.is_cut.load(Ordering::Relaxed)
        }
    }

    type Wires = Slot<Wire, &'static str>;

    async fn never() -> Result<Wire, &'static str> {
        panic!("there is a connection, or another caller connects")
    }

    async fn made() -> Result<Wire, &'static str> {
        Ok(Wire::default())
    }

    #[tokio::test]
    async fn a_connection_is_kept_until_it_breaks_or_is_given_up() {
        let slot = Wires::new();
        let first = slot.connection(made).await.unwrap();
        assert!(Arc::ptr_eq(&first, &slot.connection(never).await.unwrap()));

        first.is_cut.store(true, Ordering::Relaxed);
        let second = slot.connection(made).await.unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        // The slot has another one by now.
        slot.discard(&first);
        assert!(Arc::ptr_eq(&second, &slot.connection(never).await.unwrap()));

        slot.discard(&second);
        let third = slot.connection(made).await.unwrap();
        assert!(!Arc::ptr_eq(&second, &third));
        slot.clear();
        assert!(!Arc::ptr_eq(&third, &slot.connection(made).await.unwrap()));
    }

    #[tokio::test]
    async fn one_attempt_serves_all_who_wait_for_it() {
        for outcome in [Ok(()), Err("refused")] {
            let slot = Wires::new();
            let (decide, decided) = oneshot::channel();
            let connect = || async {
                decided.await.unwrap()?;
                made().await
            };
            let (first, second, third, ()) = tokio::join!(
                slot.connection(connect),
                slot.connection(never),
                slot.connection(never),
                async { decide.send(outcome).unwrap() },
            );
            for connected in [first, second, third] {
                assert_eq!(connected.map(drop), outcome);
            }
            // A later call tries again.
            assert!(slot.connection(made).await.is_ok());
        }
    }

    #[tokio::test]
    async fn an_attempt_that_is_given_up_is_made_by_the_next_in_line() {
        let slot = Wires::new();
        let mut given_up = Box::pin(slot.connection(std::future::pending));
        let mut next = Box::pin(slot.connection(made));
        for _ in 0..3 {
            tokio::select! {
                biased;
                _ = &mut given_up => panic!("it has no outcome"),
                _ = &mut next => panic!("one is connecting"),
                () = tokio::task::yield_now() => {}
            }
        }
        drop(given_up);
        assert!(next.await.is_ok());
    }
}
