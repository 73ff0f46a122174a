use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use super::{Lease, Presence, PresenceError};
use crate::{RoutingInfo, UserId};

/// Any [`Presence`], behind one type. Clones share the tracker.
#[derive(Clone)]
pub struct DynPresence(Arc<dyn ErasedPresence>);

impl DynPresence {
    /// Hides the type of a tracker.
    pub fn new(presence: impl Presence) -> Self {
        Self(Arc::new(presence))
    }

    /// Says that a user has a connection, until the registration ends.
    ///
    /// # Errors
    ///
    /// [`PresenceError::Closed`] when the tracker is closed, [`PresenceError::Backend`] when it
    /// fails.
    ///
    /// # Cancel safety
    ///
    /// A lease that was made when the future is dropped is ended again.
    pub async fn register(
        &self,
        user: UserId,
        routing: RoutingInfo,
    ) -> Result<Registration, PresenceError> {
        let registration = Registration {
            lease: Lease {
                user,
                id: getrandom::u64().map_err(PresenceError::backend)?,
                routing,
            },
            presence: self.clone(),
            is_held: true,
        };
        registration.refresh().await?;
        Ok(registration)
    }
}

/// One connection of a user, as presence sees it.
///
/// It lasts until it is dropped or [unregistered](Self::unregister), or until its lease runs out
/// because nobody calls [`refresh`](Self::refresh): do so at a third of the time to live, when the
/// connection shows that it is alive.
#[derive(Debug)]
#[must_use = "a registration that is dropped takes its user offline"]
pub struct Registration {
    lease: Lease,
    presence: DynPresence,
    is_held: bool,
}

impl Registration {
    /// Makes the lease last for its whole time again. A lease that ran out, or that the backend
    /// lost, comes back.
    ///
    /// # Errors
    ///
    /// [`PresenceError::Closed`] when the tracker is closed, [`PresenceError::Backend`] when it
    /// fails; the next call may succeed.
    ///
    /// # Cancel safety
    ///
    /// The lease may or may not have been refreshed when the future is dropped.
    pub async fn refresh(&self) -> Result<(), PresenceError> {
        if self.is_held {
            self.presence.hold(&self.lease).await
        } else {
            Ok(())
        }
    }

    /// Ends the registration and waits until the backend knows. A second call does nothing.
    ///
    /// # Errors
    ///
    /// [`PresenceError`] when the backend does not learn of it; then the lease runs out by itself.
    ///
    /// # Cancel safety
    ///
    /// The registration has ended when the future is dropped, at the latest when its lease runs
    /// out.
    pub async fn unregister(&mut self) -> Result<(), PresenceError> {
        if std::mem::take(&mut self.is_held) {
            self.presence.release(&self.lease).await?;
        }
        Ok(())
    }

    /// The lease behind it.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.is_held {
            self.presence.abandon(&self.lease);
        }
    }
}

impl fmt::Debug for DynPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DynPresence")
    }
}

impl Presence for DynPresence {
    async fn hold(&self, lease: &Lease) -> Result<(), PresenceError> {
        self.0.hold_boxed(lease).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), PresenceError> {
        self.0.release_boxed(lease).await
    }

    fn abandon(&self, lease: &Lease) {
        self.0.abandon_erased(lease);
    }

    async fn is_online(&self, user: &UserId) -> Result<bool, PresenceError> {
        self.0.is_online_boxed(user).await
    }

    async fn online_users(&self, users: &[UserId]) -> Result<Vec<UserId>, PresenceError> {
        self.0.online_users_boxed(users).await
    }

    async fn locate(&self, user: &UserId) -> Result<Vec<RoutingInfo>, PresenceError> {
        self.0.locate_boxed(user).await
    }

    async fn close(&self) {
        self.0.close_boxed().await;
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Answer<'a, T> = Boxed<'a, Result<T, PresenceError>>;

trait ErasedPresence: Send + Sync {
    fn hold_boxed<'a>(&'a self, lease: &'a Lease) -> Answer<'a, ()>;
    fn release_boxed<'a>(&'a self, lease: &'a Lease) -> Answer<'a, ()>;
    fn abandon_erased(&self, lease: &Lease);
    fn is_online_boxed<'a>(&'a self, user: &'a UserId) -> Answer<'a, bool>;
    fn online_users_boxed<'a>(&'a self, users: &'a [UserId]) -> Answer<'a, Vec<UserId>>;
    fn locate_boxed<'a>(&'a self, user: &'a UserId) -> Answer<'a, Vec<RoutingInfo>>;
    fn close_boxed(&self) -> Boxed<'_, ()>;
}

impl<P: Presence> ErasedPresence for P {
    fn hold_boxed<'a>(&'a self, lease: &'a Lease) -> Answer<'a, ()> {
        Box::pin(self.hold(lease))
    }

    fn release_boxed<'a>(&'a self, lease: &'a Lease) -> Answer<'a, ()> {
        Box::pin(self.release(lease))
    }

    fn abandon_erased(&self, lease: &Lease) {
        self.abandon(lease);
    }

    fn is_online_boxed<'a>(&'a self, user: &'a UserId) -> Answer<'a, bool> {
        Box::pin(self.is_online(user))
    }

    fn online_users_boxed<'a>(&'a self, users: &'a [UserId]) -> Answer<'a, Vec<UserId>> {
        Box::pin(self.online_users(users))
    }

    fn locate_boxed<'a>(&'a self, user: &'a UserId) -> Answer<'a, Vec<RoutingInfo>> {
        Box::pin(self.locate(user))
    }

    fn close_boxed(&self) -> Boxed<'_, ()> {
        Box::pin(self.close())
    }
}
