use std::sync::Arc;

use super::Here;
use crate::UserId;
use crate::presence::PresenceError;

/// One connection of a user, as presence sees it.
///
/// It lasts until it is dropped or [unregistered](Self::unregister), or its tracker is closed. The
/// tracker's heartbeat covers it.
#[derive(Debug)]
#[must_use = "a registration that is dropped takes its user offline"]
pub struct Registration {
    user: UserId,
    here: Arc<Here>,
    is_held: bool,
}

impl Registration {
    pub(super) fn new(user: UserId, here: Arc<Here>) -> Self {
        Self {
            user,
            here,
            is_held: true,
        }
    }

    /// Whose connection it is.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Waits until the store has heard of it.
    ///
    /// # Errors
    ///
    /// [`PresenceError::Closed`] when the tracker or the store was closed,
    /// [`PresenceError::Backend`] when the store fails. The registration continues, and the user is
    /// written later.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn stored(&self) -> Result<(), PresenceError> {
        self.here.stored(&self.user).await
    }

    /// Ends the registration, and waits until the store has heard of it. A second call does nothing.
    ///
    /// # Errors
    ///
    /// [`PresenceError::Closed`] when the tracker or the store was closed,
    /// [`PresenceError::Backend`] when the store fails; it gets the change later.
    ///
    /// # Cancel safety
    ///
    /// The registration has ended when the future is dropped, and the store gets the change in the background.
    pub async fn unregister(&mut self) -> Result<(), PresenceError> {
        if self.release() {
            self.here.stored(&self.user).await?;
        }
        Ok(())
    }

    /// Ends the registration. Returns whether it had not ended before.
    fn release(&mut self) -> bool {
        let was_held = std::mem::take(&mut self.is_held);
        if was_held {
            // A tracker that was closed has ended it before.
            self.here.change(|roster| roster.disconnect(&self.user));
        }
        was_held
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.release();
    }
}
