//! Puts load on a running server, and measures it.

mod arrivals;
mod bystanders;
mod measure;
mod webhooks;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use reqwest::{Client, Url};
use serde::Serialize;
use serde_json::value::RawValue;
use tidings_storage::explain::explain;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::arrivals::Arrivals;
use self::measure::{Latencies, Measured};
use super::interrupts::Interrupts;
use super::progress::Bar;
use super::remote::Remote;
use super::{CommandError, Reported, note};
use crate::settings::{HOUR, count, time};

/// The type of the notifications.
const TYPE: &str = "bench";

/// How often the progress is looked at.
const TICK: Duration = Duration::from_millis(50);

/// After this long without an arrival, what has not arrived is reported as missing.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there are no figures.
const INTERRUPTED: &str = "interrupted before the first notification was posted";

/// Has room for the numbers of any payload.
const LEAST_BYTES: usize = 64;

/// Puts load on a running server, and measures how fast it accepts, and how soon streams and webhooks get what it
/// accepted.
#[derive(Debug, Args)]
#[command(
    after_help = "The notifications are for users of this run, named bench-… They stay until the server's retention deletes them. The load needs processor time of its own: run it on another machine than the server to measure the server alone."
)]
pub(super) struct Bench {
    /// How long to post, 1s to 1h. An interrupt ends it sooner, and a second one does not wait for what is under way
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = time(1, HOUR))]
    duration: Duration,

    /// Requests that wait for their response at the same time, each on a connection of its own, 1 to 10000
    #[arg(long, default_value = "64", value_name = "COUNT", value_parser = count(1_usize, 10_000))]
    connections: usize,

    /// Notifications a second, 1 to 1000000 [default: as many as the connections can post]
    #[arg(long, value_name = "COUNT", value_parser = count(1_u32, 1_000_000))]
    rate: Option<u32>,

    /// Size of a payload in bytes, 64 to 65536
    #[arg(long, default_value = "256", value_name = "BYTES", value_parser = count(LEAST_BYTES, 65_536))]
    size: usize,

    /// Users, who get the notifications in turn, 1 to 10000
    #[arg(long, default_value = "10", value_name = "COUNT", value_parser = count(1_u64, 10_000))]
    users: u64,

    /// Streams that each user has open, 0 to 100
    #[arg(long, default_value = "1", value_name = "COUNT", value_parser = count(0_usize, 100))]
    streams: usize,

    /// Measures webhooks too: the address of this machine at which the server reaches this command, for instance
    /// 127.0.0.1:9000. Each user gets an endpoint, which is removed at the end
    #[arg(long, value_name = "IP:PORT", value_parser = receiver)]
    webhooks: Option<SocketAddr>,

    /// Lets endpoints of the operator get the notifications, as those of all users. Without it, the command refuses to
    /// run if there is one that would
    #[arg(long)]
    to_operator_endpoints: bool,

    /// Prints the figures as one JSON object, with latencies in milliseconds
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    remote: Remote,
}

fn receiver(text: &str) -> Result<SocketAddr, &'static str> {
    let address = text.parse().ok();
    address
        .filter(|address: &SocketAddr| !address.ip().is_unspecified())
        .ok_or("expected the IP address of this machine and a port, such as 127.0.0.1:9000")
}

/// What all tasks of a run share.
#[derive(Debug)]
struct Run {
    client: Client,
    remote: Remote,
    /// The URL to post to.
    url: Url,
    /// Names the users of this run.
    name: String,
    users: u64,
    size: usize,
    start: Instant,
    /// How many posts were begun, which numbers them.
    begun: AtomicU64,
    accepted: AtomicU64,
    /// No post begins any more.
    is_over: CancellationToken,
    /// No post is waited for any more.
    is_enough: CancellationToken,
    failed: Mutex<Failed>,
}

/// Posts that failed.
#[derive(Debug, Default)]
struct Failed {
    count: u64,
    first: Option<String>,
}

/// The body of a post.
#[derive(Serialize)]
struct Body<'a> {
    user_id: &'a str,
    #[serde(rename = "type")]
    event_type: &'static str,
    payload: &'a RawValue,
}

/// A payload of so many bytes: its number in this run, and when it was due, in microseconds since the start.
fn payload(n: u64, at: u64, size: usize) -> String {
    let mut payload = format!(r#"{{"n":{n},"at":{at},"text":""#);
    let text = size.saturating_sub(payload.len() + r#""}"#.len());
    payload.extend(std::iter::repeat_n('x', text));
    payload.push_str(r#""}"#);
    payload
}

impl Run {
    fn user(&self, n: u64) -> String {
        format!("bench-{}-{}", self.name, n % self.users)
    }

    /// The time since the start, in microseconds.
    fn micros(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.start);
        since.as_micros().try_into().unwrap_or(u64::MAX)
    }

    /// Posts over one connection until the time is over. `pause` is between two posts of this connection, and
    /// `first` the time of the first one: latencies count from the time at which a post was due, so that a server
    /// that falls behind does not hide it.
    async fn post(self: Arc<Self>, first: Instant, pause: Option<Duration>) -> Latencies {
        let mut latencies = Latencies::default();
        let mut due = first;
        loop {
            if pause.is_none() {
                due = Instant::now();
            }
            tokio::select! {
                biased;
                () = self.is_over.cancelled() => return latencies,
                () = sleep_until(due) => {}
            }
            let n = self.begun.fetch_add(1, Ordering::Relaxed);
            let posted = self.is_enough.run_until_cancelled(self.post_one(n, due));
            match posted.await {
                Some(Ok(())) => {
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                    latencies.add(due.elapsed());
                }
                Some(Err(error)) => self.has_failed(&error),
                None => return latencies,
            }
            due += pause.unwrap_or_default();
        }
    }

    async fn post_one(&self, n: u64, due: Instant) -> Result<(), CommandError> {
        let payload = RawValue::from_string(payload(n, self.micros(due), self.size))?;
        let body = Body {
            user_id: &self.user(n),
            event_type: TYPE,
            payload: &payload,
        };
        let request = self.client.post(self.url.clone()).json(&body);
        let response = self.remote.send(request).await?;
        // The connection is used again only after the whole response.
        let read = response.bytes().await;
        read.map_err(|error| super::remote::lost(&error))?;
        Ok(())
    }

    fn has_failed(&self, error: &CommandError) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.count += 1;
        failed.first.get_or_insert_with(|| explain(error.as_ref()));
    }
}

/// What was measured, and what went wrong besides.
struct Outcome {
    report: Report,
    first_failure: Option<String>,
    /// Whether the endpoints are removed.
    removed: Result<(), CommandError>,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    accept: Measured,
    failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<Measured>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhooks: Option<Measured>,
}

impl Report {
    fn print(&self, json: bool) -> Result<(), CommandError> {
        let mut out = std::io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string(self)?)?;
        } else {
            writeln!(out, "accept    {}", self.accept)?;
            for (name, path) in [("live", &self.live), ("webhooks", &self.webhooks)] {
                if let Some(path) = path {
                    writeln!(out, "{name:<8}  {path}")?;
                }
            }
        }
        Ok(())
    }
}

impl Bench {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        let json = self.json;
        let Outcome {
            report,
            first_failure,
            removed,
        } = self.measure().await?;
        let printed = report.print(json);
        let mut is_whole = true;
        if let Some(error) = first_failure {
            is_whole = false;
            let failed = report.failed;
            note(format_args!(
                "tidings: {failed} of the notifications were not accepted; the first: {error}"
            ));
        }
        for (name, path) in [("streams", &report.live), ("webhooks", &report.webhooks)] {
            let missing = path.as_ref().and_then(Measured::missing).unwrap_or(0);
            if missing > 0 {
                is_whole = false;
                note(format_args!("tidings: {name}: {missing} did not arrive"));
            }
        }
        // First what is left on the server.
        removed?;
        printed?;
        if is_whole {
            Ok(())
        } else {
            Err(Reported.into())
        }
    }

    async fn measure(self) -> Result<Outcome, CommandError> {
        let mut interrupts = Interrupts::listen()?;
        if !self.to_operator_endpoints {
            tokio::select! {
                refused = bystanders::refuse(&self.remote) => refused?,
                () = interrupts.next() => return Err(INTERRUPTED.into()),
            }
        }
        let run = Arc::new(Run {
            client: self.remote.calling_client()?,
            url: self.remote.address(&["v1", "notifications"])?,
            name: format!("{:08x}", fastrand::u32(..)),
            users: self.users,
            size: self.size,
            start: Instant::now(),
            begun: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            is_over: CancellationToken::new(),
            is_enough: CancellationToken::new(),
            failed: Mutex::default(),
            remote: self.remote,
        });
        let live = match self.streams {
            0 => None,
            streams => tokio::select! {
                opened = arrivals::open(&run, streams) => Some(opened?),
                () = interrupts.next() => return Err(INTERRUPTED.into()),
            },
        };
        let receiving = match self.webhooks {
            None => None,
            Some(address) => Some(webhooks::receive(&run, address, &mut interrupts).await?),
        };
        let arriving = receiving.as_ref().map(|receiving| &receiving.arrivals);
        let posting = Posting {
            run: &run,
            duration: self.duration,
            connections: self.connections,
            rate: self.rate,
        };
        let measured = posting.run(live.as_ref(), arriving, &mut interrupts).await;
        let arrived = arriving.map(|arrivals| arrivals.measured(&run, measured.duration));
        // Also after a failure: the receiver of the endpoints ends.
        let removed = match receiving {
            Some(receiving) => receiving.end(&run, &mut interrupts).await,
            None => Ok(()),
        };
        let mut failed = run.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let report = Report {
            live: live.map(|live| live.measured(&run, measured.duration)),
            webhooks: arrived,
            failed: failed.count,
            accept: measured.accept,
        };
        Ok(Outcome {
            report,
            first_failure: failed.first.take(),
            removed,
        })
    }
}

/// How to post.
struct Posting<'a> {
    run: &'a Arc<Run>,
    duration: Duration,
    connections: usize,
    rate: Option<u32>,
}

/// What posting has measured.
struct Posted {
    accept: Measured,
    /// How long was posted.
    duration: Duration,
}

impl Posting<'_> {
    /// Posts, and waits until what was accepted has arrived. An interrupt ends the one, and a second the other.
    async fn run(
        &self,
        live: Option<&Arrivals>,
        webhooks: Option<&Arrivals>,
        interrupts: &mut Interrupts,
    ) -> Posted {
        let begin = Instant::now();
        let mut posters = JoinSet::new();
        for n in 0..self.connections {
            // All connections together keep the rate, one after the other.
            let each = self
                .rate
                .map(|rate| Duration::from_secs(1).div_f64(f64::from(rate)));
            let offset = each.unwrap_or_default().mul_f64(count_as_f64(n));
            let pause = each.map(|each| each.mul_f64(count_as_f64(self.connections)));
            posters.spawn(Arc::clone(self.run).post(begin + offset, pause));
        }
        let mut bar = Bar::new();
        let mut ticks = tokio::time::interval(TICK);
        while begin.elapsed() < self.duration {
            tokio::select! {
                _ = ticks.tick() => {}
                () = interrupts.next() => break,
            }
            let accepted = self.run.accepted.load(Ordering::Relaxed);
            let words = format!("{accepted} accepted");
            bar.show(millis(begin.elapsed()), millis(self.duration), words);
        }
        self.run.is_over.cancel();
        let mut latencies = Latencies::default();
        loop {
            tokio::select! {
                poster = posters.join_next() => match poster {
                    // A poster that has panicked has said so.
                    Some(poster) => latencies.merge(&poster.unwrap_or_default()),
                    None => break,
                },
                () = interrupts.next() => self.run.is_enough.cancel(),
            }
        }
        let duration = begin.elapsed();
        for (name, arrivals) in [("streams", live), ("webhooks", webhooks)] {
            if let Some(arrivals) = arrivals
                && !self.run.is_enough.is_cancelled()
            {
                tokio::select! {
                    () = arrivals.wait(self.run, &mut bar, name, &mut ticks) => {}
                    () = interrupts.next() => self.run.is_enough.cancel(),
                }
            }
        }
        bar.end();
        Posted {
            accept: Measured::new(&latencies, duration),
            duration,
        }
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Exact: connections are at most ten thousand.
fn count_as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_its_size_and_is_json() {
        for (n, at) in [(0, 0), (u64::MAX, u64::MAX)] {
            for size in [LEAST_BYTES, 256] {
                let payload = payload(n, at, size);
                assert_eq!(payload.len(), size);
                serde_json::from_str::<serde_json::Value>(&payload).unwrap();
            }
        }
    }
}
