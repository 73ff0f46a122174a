//! What arrives on streams and by webhook.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use serde::Deserialize;
use tidings_notify::wire::{BYE, SSE_PREFIX};
use tidings_storage::explain::explain;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval};

use super::measure::{Latencies, Measured};
use super::{PATIENCE, Run};
use crate::commands::CommandError;
use crate::commands::progress::Bar;
use crate::commands::remote::lost;
use crate::commands::sse::SseReader;
use crate::commands::tail::reason;

/// A notification that has arrived.
#[derive(Deserialize)]
struct Notification {
    payload: Sent,
}

/// What a payload says of its post.
#[derive(Deserialize)]
pub(super) struct Sent {
    n: u64,
    at: u64,
}

/// What has arrived over all streams, or by webhook.
pub(super) struct Arrivals {
    shared: Arc<Shared>,
    /// How often each notification arrives.
    copies: u64,
    _readers: JoinSet<()>,
}

#[derive(Default)]
pub(super) struct Shared {
    latencies: Mutex<Latencies>,
    /// Arrivals of different notifications, and of the same ones again.
    count: AtomicU64,
    repeated: AtomicU64,
    /// No one waits for arrivals any more.
    is_over: AtomicBool,
}

impl Shared {
    /// Counts an arrival. `seen` is what has arrived on the same way before.
    pub(super) fn arrived(&self, run: &Run, sent: &Sent, seen: &mut Seen) {
        if !seen.insert(sent.n) {
            self.repeated.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let now = run.micros(Instant::now());
        let latency = Duration::from_micros(now.saturating_sub(sent.at));
        let mut latencies = self
            .latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        latencies.add(latency);
    }
}

/// Which numbers have arrived: a bit for each.
#[derive(Debug, Default)]
pub(super) struct Seen(Vec<u64>);

impl Seen {
    /// Whether the number is new.
    fn insert(&mut self, n: u64) -> bool {
        let Ok(word) = usize::try_from(n / 64) else {
            return false;
        };
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let bit = 1 << (n % 64);
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }
}

/// The readers are aborted. One that runs at that moment may go on until the connections have ended, too.
impl Drop for Arrivals {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

impl Arrivals {
    pub(super) fn new(shared: Arc<Shared>, copies: u64, readers: JoinSet<()>) -> Self {
        Self {
            shared,
            copies,
            _readers: readers,
        }
    }

    fn expected(&self, run: &Run) -> u64 {
        run.accepted.load(Ordering::Relaxed) * self.copies
    }

    /// Waits until all that was accepted has arrived, or nothing more arrives.
    pub(super) async fn wait(&self, run: &Run, bar: &mut Bar, name: &str, ticks: &mut Interval) {
        let (mut before, mut since) = (0, Instant::now());
        loop {
            let (count, expected) = (
                self.shared.count.load(Ordering::Relaxed),
                self.expected(run),
            );
            if count != before {
                (before, since) = (count, Instant::now());
            }
            if count >= expected || since.elapsed() > PATIENCE {
                return;
            }
            bar.show(
                count,
                expected,
                format!("{count} of {expected} have arrived: {name}"),
            );
            ticks.tick().await;
        }
    }

    pub(super) fn measured(&self, run: &Run, duration: Duration) -> Measured {
        let latencies = self.shared.latencies.lock();
        let latencies = latencies.unwrap_or_else(PoisonError::into_inner);
        let count = self.shared.count.load(Ordering::Relaxed);
        let missing = self.expected(run).saturating_sub(count);
        let repeated = self.shared.repeated.load(Ordering::Relaxed);
        Measured::new(&latencies, duration).with_missing(missing, repeated)
    }
}

/// Opens streams for every user, and returns when all are open.
pub(super) async fn open(run: &Arc<Run>, streams: usize) -> Result<Arrivals, CommandError> {
    let shared = Arc::<Shared>::default();
    let client = run.remote.client()?;
    let mut readers = JoinSet::new();
    let mut openings = Vec::new();
    for user in 0..run.users {
        let url = run
            .remote
            .address(&["v1", "users", &run.user(user), "events"])?;
        for _ in 0..streams {
            let (opened, is_open) = oneshot::channel();
            openings.push(is_open);
            let reader = Reader {
                run: Arc::clone(run),
                shared: Arc::clone(&shared),
                request: client.get(url.clone()),
            };
            readers.spawn(reader.read(opened).boxed());
        }
    }
    for opening in openings {
        opening.await??;
    }
    let copies = u64::try_from(streams).unwrap_or(u64::MAX);
    Ok(Arrivals::new(shared, copies, readers))
}

/// Reads one stream.
struct Reader {
    run: Arc<Run>,
    shared: Arc<Shared>,
    request: reqwest::RequestBuilder,
}

impl Reader {
    /// Reads until the connection ends. The first event says that the stream is open.
    async fn read(self, opened: oneshot::Sender<Result<(), CommandError>>) {
        let mut opened = Some(opened);
        let ended = self.follow(&mut opened).await;
        let is_over = self.shared.is_over.load(Ordering::Relaxed);
        if let (None, Err(error), false) = (&opened, &ended, is_over) {
            let reason = explain(error.as_ref());
            // What it would have brought counts as missing, also if nothing can be written.
            let _closed = writeln!(std::io::stderr(), "tidings: a stream has ended: {reason}");
        }
        if let Some(opened) = opened {
            let error = ended
                .err()
                .unwrap_or_else(|| "the server ended the stream".into());
            // Another stream could not be opened, either.
            let _gone = opened.send(Err(error));
        }
    }

    async fn follow(
        &self,
        opened: &mut Option<oneshot::Sender<Result<(), CommandError>>>,
    ) -> Result<(), CommandError> {
        let request = self.request.try_clone().ok_or("a request with a body")?;
        let mut response = self.run.remote.send(request).await?;
        let (mut reader, mut seen) = (SseReader::default(), Seen::default());
        while let Some(bytes) = response.chunk().await.map_err(|error| lost(&error))? {
            let mut bytes = &*bytes;
            while let Some(event) = reader.next(&mut bytes)? {
                if opened.is_some() && event.name.strip_prefix(SSE_PREFIX) == Some(BYE) {
                    let reason = reason(&event.data);
                    return Err(format!("the server refused a stream: {reason}").into());
                }
                if let Some(opened) = opened.take() {
                    let _gone = opened.send(Ok(()));
                }
                if event.name.is_empty() {
                    let notification: Notification = serde_json::from_str(&event.data)?;
                    self.shared
                        .arrived(&self.run, &notification.payload, &mut seen);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_new_once() {
        let mut seen = Seen::default();
        for n in [0, 63, 64, 1000, 5] {
            assert!(seen.insert(n));
            assert!(!seen.insert(n));
        }
    }
}
