//! How far an attempt has come.
//!
//! hyper does not report what it does, but it calls what it was given: the resolver when it needs an
//! address, the body once it writes the request. The resolver and the connector are called while the
//! attempt's own task waits for a new connection, so that a task-local value leads from there to the
//! attempt; the body holds it.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::Phases;

tokio::task_local! {
    static CURRENT: Arc<Progress>;
}

/// How far an attempt has come. Every mark but that of the proxy is made once; the first one counts.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
    /// Whether the connection is one with TLS.
    secured: bool,
    lookup_began: OnceLock<Instant>,
    dns: OnceLock<Duration>,
    /// Whether a connection to the proxy is being made.
    awaits_proxy: AtomicBool,
    reached: OnceLock<Reached>,
    /// When the connection was ready, the handshake included.
    connected: OnceLock<Instant>,
    /// When the request began to leave; `None` inside when only that it did is known.
    sent: OnceLock<Option<Instant>>,
    responded: OnceLock<Instant>,
}

/// The endpoint accepted the TCP connection.
#[derive(Debug, Clone, Copy)]
struct Reached {
    at: Instant,
    /// The lookup included.
    took: Duration,
}

impl Progress {
    pub(crate) fn new(secured: bool) -> Self {
        Self {
            secured,
            start: Instant::now(),
            lookup_began: OnceLock::new(),
            dns: OnceLock::new(),
            awaits_proxy: AtomicBool::new(false),
            reached: OnceLock::new(),
            connected: OnceLock::new(),
            sent: OnceLock::new(),
            responded: OnceLock::new(),
        }
    }

    /// The attempt that the running task makes.
    pub(crate) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Lets what is called from within a future find this attempt.
    pub(crate) fn observe<F: Future>(
        self: &Arc<Self>,
        future: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(Arc::clone(self), future)
    }

    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The host name is being resolved.
    pub(crate) fn looking_up(&self) {
        mark(&self.lookup_began, Instant::now());
    }

    /// The host name was resolved, successfully or not.
    pub(crate) fn looked_up(&self, took: Duration) {
        mark(&self.dns, took);
    }

    /// Since when the host name is being resolved, unless that is over.
    pub(crate) fn lookup_pending_since(&self) -> Option<Instant> {
        match self.dns.get() {
            None => self.lookup_began.get().copied(),
            Some(_) => None,
        }
    }

    /// A connection to the proxy is being made, or is there.
    pub(crate) fn await_proxy(&self, awaits: bool) {
        self.awaits_proxy.store(awaits, Ordering::Relaxed);
    }

    /// Whether a connection to the proxy is being made, or could not be made.
    pub(crate) fn is_proxy_awaited(&self) -> bool {
        self.awaits_proxy.load(Ordering::Relaxed)
    }

    /// There is a TCP connection, after so long.
    pub(crate) fn reached(&self, took: Duration) {
        let at = Instant::now();
        mark(&self.reached, Reached { at, took });
    }

    /// There is a connection that can be used.
    pub(crate) fn connected(&self) {
        mark(&self.connected, Instant::now());
    }

    /// The request begins to leave.
    pub(crate) fn sending(&self) {
        mark(&self.sent, Some(Instant::now()));
    }

    /// The request has to be taken for sent, because nothing will report when it is.
    pub(crate) fn assume_sent(&self) {
        mark(&self.sent, None);
    }

    /// The head of the response is there: since when.
    pub(crate) fn responded(&self) -> Instant {
        *self.responded.get_or_init(Instant::now)
    }

    /// Whether something of the request may have left.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent.get().is_some()
    }

    pub(crate) fn phases(&self) -> Phases {
        let dns = self.dns.get().copied();
        let reached = self.reached.get();
        let connected = self.connected.get().copied();
        let sent = (self.sent.get().copied().flatten())
            .or(connected)
            .unwrap_or(self.start);
        Phases {
            dns,
            connect: reached.map(|reached| reached.took.saturating_sub(dns.unwrap_or_default())),
            tls: self
                .secured
                .then_some(())
                .and_then(|()| Some(connected?.saturating_duration_since(reached?.at))),
            first_byte: self
                .responded
                .get()
                .map(|at| at.saturating_duration_since(sent)),
        }
    }
}

fn mark<T>(cell: &OnceLock<T>, value: T) {
    cell.get_or_init(|| value);
}
