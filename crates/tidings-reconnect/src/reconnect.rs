use tokio::time::Instant;

use crate::trouble::STEADY;
use crate::{Backoff, Trouble};

/// Paces the attempts of a loop that keeps one connection, and says which of them to log: an outage is
/// reported once when it begins and once when it ends, however many attempts it takes.
///
/// ```
/// # async fn connect() -> Result<(), &'static str> { Err("refused") }
/// # async fn serve(_: ()) -> &'static str { "broke" }
/// # async fn keep() {
/// use tidings_reconnect::Reconnect;
///
/// let mut reconnect = Reconnect::new();
/// loop {
///     let error = match connect().await {
///         Ok(connection) => {
///             if reconnect.connected() {
///                 println!("connected again");
///             }
///             serve(connection).await
///         }
///         Err(error) => error,
///     };
///     if reconnect.failed() {
///         println!("lost the connection: {error}");
///     }
///     reconnect.pause().await;
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Reconnect {
    backoff: Backoff,
    /// Since when there is a connection.
    connected: Option<Instant>,
    trouble: Trouble,
}

impl Reconnect {
    /// Begins without a connection and without an outage.
    pub fn new() -> Self {
        Self {
            backoff: Backoff::new(fastrand::Rng::new()),
            connected: None,
            trouble: Trouble::new(),
        }
    }

    /// Records that there is a connection. Returns `true` if that is to be logged: it ends an outage that
    /// was reported.
    pub fn connected(&mut self) -> bool {
        self.connected = Some(Instant::now());
        self.trouble.worked()
    }

    /// Records that the connection broke, or that there is none. Returns `true` if that is to be logged.
    pub fn failed(&mut self) -> bool {
        let lasted = self.connected.take().map(|since| since.elapsed());
        // A server that accepts every connection and drops it would be flooded otherwise.
        if lasted.is_some_and(|lasted| lasted >= STEADY) {
            self.backoff.reset();
        }
        self.trouble.failed()
    }

    /// Waits before the next attempt.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future shortens the pause.
    pub async fn pause(&mut self) {
        if let Some(pause) = self.backoff.next() {
            tokio::time::sleep(pause).await;
        }
    }
}

impl Default for Reconnect {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_reported_once_and_so_is_its_end() {
        let mut reconnect = Reconnect::new();
        for _ in 0..2 {
            assert!(reconnect.failed());
            for _ in 0..5 {
                reconnect.pause().await;
                assert!(!reconnect.failed());
            }
            assert!(reconnect.connected());
            tokio::time::sleep(STEADY).await;
        }
        assert!(!Reconnect::new().connected());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_drops_every_connection_is_one_outage_with_growing_pauses() {
        let mut reconnect = Reconnect::new();
        assert!(reconnect.failed());
        assert!(reconnect.connected());
        let (begun, mut reports) = (Instant::now(), 0);
        for _ in 0..100 {
            reports += usize::from(reconnect.failed());
            reconnect.pause().await;
            reconnect.connected();
        }
        assert_eq!(reports, 0);
        assert!(begun.elapsed() > Duration::from_secs(200));
        tokio::time::sleep(STEADY).await;
        // That connection was a steady one, and its end is another outage.
        assert!(reconnect.failed());
    }
}
