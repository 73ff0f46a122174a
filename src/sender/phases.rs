//! Where the time of an attempt goes.
//!
//! The HTTP client does not tell what it does, but it calls what it was given: the resolver when it
//! looks a name up, the connector when it needs a new connection, the body once it writes the
//! request. All of that happens while the attempt's own task polls the request, so that a
//! task-local value leads from there to the attempt.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use tokio::time::Instant;
use tower::{Layer, Service};

/// Where the time of an attempt went.
///
/// What did not happen, or cannot be told, is `None`: a connection that was there already took
/// neither `dns` nor `connect`. The handshake of TLS is a part of `connect`, because the HTTP client
/// makes both in one step. With an HTTP client of the caller's own only `first_byte` is known.
///
/// As JSON: `dns_ms`, `connect_ms` and `first_byte_ms`, in milliseconds with up to three decimals,
/// `null` when absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Phases {
    /// Looking the name up. An answer that was cached takes next to nothing.
    pub dns: Option<Duration>,
    /// Making the connection, TLS included and `dns` not.
    pub connect: Option<Duration>,
    /// From the first byte of the request to the whole head of the answer. Of a request without a
    /// body it is not seen when it leaves: then it counts from the connection, or from the start.
    pub first_byte: Option<Duration>,
}

impl Serialize for Phases {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fn milliseconds(phase: Option<Duration>) -> Option<f64> {
            phase.map(|phase| (phase.as_secs_f64() * 1e6).round() / 1e3)
        }
        let mut fields = serializer.serialize_struct("Phases", 3)?;
        fields.serialize_field("dns_ms", &milliseconds(self.dns))?;
        fields.serialize_field("connect_ms", &milliseconds(self.connect))?;
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
    dns: OnceLock<Duration>,
    connected: OnceLock<Connected>,
    /// When the request began to leave, if that was seen.
    sent: OnceLock<Option<Instant>>,
    answered: OnceLock<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Connected {
    at: Instant,
    took: Duration,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            dns: OnceLock::new(),
            connected: OnceLock::new(),
            sent: OnceLock::new(),
            answered: OnceLock::new(),
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

    fn connected(&self, took: Duration) {
        // A request that found an idle connection meanwhile did not wait for this one.
        if self.sent.get().copied().flatten().is_none() {
            let at = Instant::now();
            mark(&self.connected, Connected { at, took });
        }
    }

    /// The request begins to leave.
    pub(super) fn sending(&self) {
        mark(&self.sent, Some(Instant::now()));
    }

    /// The request has to be taken for sent: it will not be seen leaving.
    pub(super) fn sent_unseen(&self) {
        mark(&self.sent, None);
    }

    pub(super) fn answered(&self) {
        mark(&self.answered, Instant::now());
    }

    /// Whether something of the request may have left.
    pub(super) fn is_sent(&self) -> bool {
        self.sent.get().is_some()
    }

    pub(super) fn phases(&self) -> Phases {
        let dns = self.dns.get().copied();
        let connected = self.connected.get();
        let sent = (self.sent.get().copied().flatten())
            .or(connected.map(|connected| connected.at))
            .unwrap_or(self.start);
        Phases {
            dns,
            connect: connected
                .map(|connected| connected.took.saturating_sub(dns.unwrap_or_default())),
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

/// Times the connections that an HTTP client makes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectTimer;

impl<S> Layer<S> for ConnectTimer {
    type Service = TimedConnector<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TimedConnector(inner)
    }
}

#[derive(Debug, Clone)]
pub(super) struct TimedConnector<S>(S);

impl<S, Target> Service<Target> for TimedConnector<S>
where
    S: Service<Target>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, target: Target) -> Self::Future {
        let start = Instant::now();
        let progress = Progress::current();
        let connecting = self.0.call(target);
        Box::pin(async move {
            let connection = connecting.await;
            if let (Some(progress), Ok(_)) = (progress, &connection) {
                progress.connected(start.elapsed());
            }
            connection
        })
    }
}
