//! Where the time of an attempt goes.
//!
//! hyper does not tell what it does, but it calls what it was given: the resolver when it looks a
//! name up, the connector when it needs a new connection, the body once it writes the request. All
//! of that happens while the attempt's own task polls the request, so that a task-local value leads
//! from there to the attempt.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Where the time of an attempt went.
///
/// What did not happen, or cannot be told, is `None`: a connection that was there already took
/// neither `dns` nor `connect` nor `tls`. With an HTTP client of the caller's own only `first_byte`
/// is known.
///
/// As JSON: `dns_ms`, `connect_ms`, `tls_ms` and `first_byte_ms`, in milliseconds with up to three
/// decimals, `null` when absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Phases {
    /// Looking the name up. An answer that was cached takes next to nothing.
    pub dns: Option<Duration>,
    /// Making the TCP connection, once the address was known.
    pub connect: Option<Duration>,
    /// The handshake of TLS.
    pub tls: Option<Duration>,
    /// From the first byte of the request to the whole head of the answer. Of a request without a
    /// body it is not seen when it leaves: then it counts from the connection, or from the start.
    pub first_byte: Option<Duration>,
}

impl Serialize for Phases {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fn milliseconds(phase: Option<Duration>) -> Option<f64> {
            phase.map(|phase| (phase.as_secs_f64() * 1e6).round() / 1e3)
        }
        let mut fields = serializer.serialize_struct("Phases", 4)?;
        fields.serialize_field("dns_ms", &milliseconds(self.dns))?;
        fields.serialize_field("connect_ms", &milliseconds(self.connect))?;
        fields.serialize_field("tls_ms", &milliseconds(self.tls))?;
        fields.serialize_field("first_byte_ms", &milliseconds(self.first_byte))?;
        fields.end()
    }
}

tokio::task_local! {
    static CURRENT: Arc<Progress>;
}

/// How far an attempt has come. Every mark is made once; the first one counts.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
    /// Whether the connection is one with TLS.
    secured: bool,
    dns: OnceLock<Duration>,
    reached: OnceLock<Reached>,
    /// When the connection was ready, the handshake included.
    connected: OnceLock<Instant>,
    /// When the request began to leave, if that was seen.
    sent: OnceLock<Option<Instant>>,
    answered: OnceLock<Instant>,
    interim_answers: AtomicU32,
    /// Wakes the attempt when there were too many of them.
    flood: Notify,
}

/// The endpoint took the TCP connection.
#[derive(Debug, Clone, Copy)]
struct Reached {
    at: Instant,
    /// The lookup included.
    took: Duration,
}

impl Progress {
    pub(super) fn new(secured: bool) -> Self {
        Self {
            secured,
            start: Instant::now(),
            dns: OnceLock::new(),
            reached: OnceLock::new(),
            connected: OnceLock::new(),
            sent: OnceLock::new(),
            answered: OnceLock::new(),
            interim_answers: AtomicU32::new(0),
            flood: Notify::new(),
        }
    }

    /// The attempt that the running task makes.
    pub(crate) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Lets what is called from within a future find this attempt.
    pub(super) fn observe<F: Future>(
        self: &Arc<Self>,
        future: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(Arc::clone(self), future)
    }

    pub(super) fn start(&self) -> Instant {
        self.start
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The name has been looked up, successfully or not.
    pub(crate) fn looked_up(&self, took: Duration) {
        mark(&self.dns, took);
    }

    /// There is a TCP connection, after so long.
    pub(super) fn reached(&self, took: Duration) {
        if !self.found_another() {
            let at = Instant::now();
            mark(&self.reached, Reached { at, took });
        }
    }

    /// There is a connection that can be used.
    pub(super) fn connected(&self) {
        if !self.found_another() {
            mark(&self.connected, Instant::now());
        }
    }

    /// Whether the request found an idle connection meanwhile, and did not wait for a new one.
    fn found_another(&self) -> bool {
        self.sent.get().copied().flatten().is_some()
    }

    /// An interim answer came. More than so many end the attempt.
    pub(super) fn interim_answer(&self, most: u32) {
        if self.interim_answers.fetch_add(1, Ordering::Relaxed) == most {
            self.flood.notify_one();
        }
    }

    /// Waits until there were too many interim answers.
    pub(super) async fn flooded(&self) {
        self.flood.notified().await;
    }

    /// The request begins to leave.
    pub(super) fn sending(&self) {
        mark(&self.sent, Some(Instant::now()));
    }

    /// The request has to be taken for sent: it will not be seen leaving.
    pub(super) fn sent_unseen(&self) {
        mark(&self.sent, None);
    }

    /// The head of the answer is there: since when.
    pub(super) fn answered(&self) -> Instant {
        *self.answered.get_or_init(Instant::now)
    }

    /// Whether something of the request may have left.
    pub(super) fn is_sent(&self) -> bool {
        self.sent.get().is_some()
    }

    pub(super) fn phases(&self) -> Phases {
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
                .answered
                .get()
                .map(|at| at.saturating_duration_since(sent)),
        }
    }
}

fn mark<T>(cell: &OnceLock<T>, value: T) {
    // The first mark counts: a name is looked up once, and a body begins once.
    cell.get_or_init(|| value);
}
