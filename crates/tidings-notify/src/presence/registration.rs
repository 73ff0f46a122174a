use std::sync::Arc;

use super::{Lease, Presence, PresenceError};
use crate::{RoutingInfo, UserId};

impl dyn Presence {
    /// Registers a connection of a user, until the registration ends.
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
        self: &Arc<Self>,
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
/// because [`refresh`](Self::refresh) is not called: call it at a third of the time to live, if the
/// connection is still alive.
#[derive(Debug)]
#[must_use = "a registration that is dropped takes its user offline"]
pub struct Registration {
    lease: Lease,
    presence: Arc<dyn Presence>,
    is_held: bool,
}

impl Registration {
    /// Renews the lease for its whole time. A lease that ran out, or that the backend lost, is
    /// created again.
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

    /// Ends the registration and waits until the backend has released the lease. A second call does nothing.
    ///
    /// # Errors
    ///
    /// [`PresenceError`] when the backend could not release the lease; then it runs out by itself.
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

    /// The lease of the registration.
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
