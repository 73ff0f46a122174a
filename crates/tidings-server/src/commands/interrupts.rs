//! What ends a run sooner.

use std::io;

use futures_util::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Interrupts from the terminal, and requests to terminate. A process that does not listen for them ends at once, and
/// leaves what it has made on the server.
#[derive(Debug)]
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    has_come: bool,
}

impl Interrupts {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            has_come: false,
        })
    }

    /// Waits for the next one.
    ///
    /// Cancel safe: a dropped call takes none.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        self.has_come = true;
    }

    /// Waits for the second one.
    ///
    /// Cancel safe: a dropped call may have taken the first.
    pub(super) async fn again(&mut self) {
        if !self.has_come {
            self.next().await;
        }
        self.next().await;
    }

    /// Whether there was one.
    pub(super) fn have_come(&mut self) -> bool {
        while self.next().now_or_never().is_some() {}
        self.has_come
    }

    /// Forgets those that there were: the next one is the first.
    pub(super) fn forget(&mut self) {
        self.have_come();
        self.has_come = false;
    }
}
