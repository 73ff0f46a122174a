use std::sync::Arc;

use tokio::sync::watch;

/// Holds replies back until a test opens it, so that tests need no delays.
///
/// Clones are the same gate. Once open it stays open.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets everything through that waits, and everything that comes.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until the gate is open.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn opened(&self) {
        let mut state = self.0.subscribe();
        // It fails only without a sender, and `self` is one.
        let _open = state.wait_for(|open| *open).await;
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}
