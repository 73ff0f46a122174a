//! `cargo bench --bench soak -- 60 64`
//!
//! Sends to every hostile receiver of the catalogue and to good ones, at load, for so many seconds
//! (at most an hour) with so many senders at a time, and reports what became of it: deliveries,
//! outcomes by receiver, and the memory of the process over time, which must not grow.

#![allow(clippy::print_stdout, reason = "a benchmark that talks to a person")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidings::signing::Secret;
use tidings::{Attempt, Endpoint, Message, Sender};
use tidings_bench::{Row, Target};
use tidings_test_support::{Receiver, catalogue};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Deadline of each attempt: receivers that stall would otherwise take all the time.
const TIMEOUT: Duration = Duration::from_secs(2);

const REPORTS: u32 = 10;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // cargo adds one of its own.
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let mut number = |name, default, range: std::ops::RangeInclusive<u32>| {
        let text = arguments.next();
        let number = text.map_or(Ok(default), |text| text.parse()).ok();
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| format!("{name}: expected a number from {range:?}"))
    };
    let length = u32::try_from(tidings_bench::length().as_secs())?;
    let seconds = number("seconds", 5 * length, 1..=3600)?;
    let senders = number("senders", 32, 1..=1000)?;

    // In the same process: what it kept would be memory.
    let receiver = Receiver::builder(catalogue::script())
        .with_kept(0)
        .start()
        .await?;
    let sender = Sender::builder().build()?;
    let outcomes = Arc::new(Outcomes::default());
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds.into());

    let mut tasks = JoinSet::new();
    for first in 0..senders as usize {
        let entries = catalogue::ENTRIES.iter().cycle().skip(first);
        let endpoints = entries.map(|entry| (entry.path(), receiver.url(entry.example())));
        let endpoints = endpoints.take(catalogue::ENTRIES.len()).map(|(path, url)| {
            let builder = Endpoint::builder(url).secret(Secret::generate());
            builder
                .timeout(TIMEOUT)
                .build()
                .map(|endpoint| (path, endpoint))
        });
        let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
        tasks.spawn(send_until(
            end,
            sender.clone(),
            endpoints,
            Arc::clone(&outcomes),
        ));
    }

    let mut memory = Vec::new();
    println!("{:>8} {:>10} {:>10}", "seconds", "attempts", "RSS MiB");
    for report in 0..=REPORTS {
        tokio::time::sleep_until(start + (end - start) * report / REPORTS).await;
        println!(
            "{:>8} {:>10} {:>10}",
            start.elapsed().as_secs(),
            outcomes.attempts(),
            rss_mib().map_or_else(|| "unknown".to_owned(), |mib| format!("{mib:.1}")),
        );
        memory.extend(rss_mib());
    }
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    outcomes.print(start.elapsed());
    if let (Some(middle), Some(end)) = (memory.get(memory.len() / 2), memory.last()) {
        Row::cost("memory at the end of hostile load", "MiB", *end)
            .beside("in the middle", *middle)
            .target(Target::Ratio(0.9))
            .note(format!("{} attempts in {seconds} s", outcomes.attempts()))
            .emit();
    }
    Ok(())
}

/// Goes through the endpoints over and over, one attempt at a time.
async fn send_until(
    end: Instant,
    sender: Sender,
    endpoints: Vec<(&'static str, Endpoint)>,
    outcomes: Arc<Outcomes>,
) {
    for (path, endpoint) in endpoints.iter().cycle() {
        if Instant::now() >= end {
            return;
        }
        let message = Message::from("soak");
        outcomes.add(path, &sender.attempt(endpoint, &message, 1).await);
    }
}

/// How many attempts at each path ended in which way, and how long the longest took.
#[derive(Default)]
struct Outcomes(Mutex<BTreeMap<Outcome, (u64, Duration)>>);

/// A path, and a status or the word of an error.
type Outcome = (&'static str, String);

impl Outcomes {
    fn add(&self, path: &'static str, attempt: &Attempt) {
        let outcome = match (attempt.status(), attempt.error_kind()) {
            (Some(status), _) => status.as_str().to_owned(),
            (None, Some(kind)) => kind.as_str().to_owned(),
            (None, None) => "nothing".to_owned(),
        };
        let mut outcomes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, longest) = outcomes.entry((path, outcome)).or_default();
        *count += 1;
        *longest = attempt.elapsed.max(*longest);
    }

    fn attempts(&self) -> u64 {
        let outcomes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.values().map(|(count, _)| count).sum()
    }

    fn print(&self, elapsed: Duration) {
        let outcomes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        println!(
            "\n{:<24} {:<18} {:>9} {:>11}",
            "receiver", "outcome", "attempts", "longest ms"
        );
        for ((path, outcome), (count, longest)) in outcomes.iter() {
            println!(
                "{path:<24} {outcome:<18} {count:>9} {:>11}",
                longest.as_millis()
            );
        }
        let delivered: u64 = (outcomes.iter())
            .filter(|((_, outcome), _)| outcome.starts_with('2'))
            .map(|(_, (count, _))| count)
            .sum();
        println!("\n{delivered} deliveries in {:.1} s", elapsed.as_secs_f64());
    }
}

/// The resident memory of this process, where it is known.
fn rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024.0)
}
