//! What the figures were measured on.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a program without tasks"
)]

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;
use tidings_bench::{Figure, Latencies};

use crate::{Failure, programs};

/// How long is looked at what others do.
const LOOK: Duration = Duration::from_millis(500);

const SYNCS: usize = 100;

/// What is written and synced at a time.
const PAGE: [u8; 4096] = [b'x'; 4096];

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    memory_gib: f64,
    kernel: String,
    /// How long it takes until 4 KiB are on disk, in milliseconds.
    sync_p50_ms: f64,
    sync_p99_ms: f64,
    pub(crate) free_bytes: u64,
    versions: Vec<String>,
    /// The largest share of the processors that other programs used during a benchmark.
    others: f64,
}

/// What all programs have used of the processors so far, and what those of the benchmarks have, in ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    busy: f64,
    all: f64,
    /// Only of programs that have ended.
    ours: f64,
}

impl Used {
    pub(crate) fn now() -> Result<Self, Failure> {
        let (busy, all) = times()?;
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        let (_, fields) = stat.rsplit_once(')').ok_or("/proc/self/stat has no name")?;
        let fields = fields.split_whitespace().skip(13).take(2);
        let ours = fields.filter_map(|word| word.parse::<f64>().ok()).sum();
        Ok(Self { busy, all, ours })
    }

    /// The share of the processors that others have used since then.
    pub(crate) fn by_others_since(self, then: Self) -> f64 {
        let busy = (self.busy - then.busy) - (self.ours - then.ours);
        // Ticks are rounded.
        (busy / (self.all - then.all).max(1.0)).max(0.0)
    }
}

/// Watches for moments in which no program ran at all, such as while a virtual machine is paused: a benchmark that
/// went through one has measured nothing.
#[derive(Debug)]
pub(crate) struct Watch {
    ended: mpsc::Sender<()>,
    watching: JoinHandle<Duration>,
}

impl Watch {
    pub(crate) fn start() -> Self {
        let (ended, is_over) = mpsc::channel();
        let watching = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            loop {
                let began = Instant::now();
                if is_over.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout) {
                    return longest;
                }
                longest = longest.max(began.elapsed().saturating_sub(LOOK));
            }
        });
        Self { ended, watching }
    }

    /// How much longer than it should the longest moment took.
    pub(crate) fn end(self) -> Duration {
        drop(self.ended);
        self.watching.join().unwrap_or_default()
    }
}

/// The share of the processors that programs use in this moment, in which no benchmark runs.
pub(crate) fn look_at_others() -> Result<f64, Failure> {
    let then = Used::now()?;
    std::thread::sleep(LOOK);
    Ok(Used::now()?.by_others_since(then))
}

impl Machine {
    pub(crate) fn look(folder: &Path) -> Result<Self, Failure> {
        let syncs = syncs(folder)?;
        let (name, version) = programs::PEER;
        let mut versions = vec![format!("{name} {version}")];
        for command in [
            &["rustc", "--version"],
            &["redis-server", "--version"],
            &["go", "version"],
            &["wrk", "-v"],
        ] {
            versions.push(said_by(command));
        }
        versions.push(postgres());
        Ok(Self {
            processor: line_of("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: line_of("/proc/meminfo", "MemTotal")
                .trim_end_matches(" kB")
                .parse::<f64>()
                .map_or(f64::NAN, |kib| kib / f64::from(1 << 20)),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
            sync_p50_ms: syncs.p50().as_secs_f64() * 1000.0,
            sync_p99_ms: syncs.p99().as_secs_f64() * 1000.0,
            free_bytes: free_bytes(folder)?,
            versions,
            others: 0.0,
        })
    }

    /// Notes the share of the processors that others have used during a benchmark.
    pub(crate) fn note_others(&mut self, share: f64) {
        self.others = self.others.max(share);
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, {} cores, {:.0} GiB, Linux {}; 4 KiB are on disk after {} ms (p99 {} ms).",
            self.processor,
            self.cores,
            self.memory_gib,
            self.kernel,
            Figure::from(self.sync_p50_ms),
            Figure::from(self.sync_p99_ms)
        )?;
        writeln!(f, "{}.", self.versions.join("; "))?;
        writeln!(
            f,
            "Other programs used up to {:.0} % of the processors during a benchmark.",
            self.others * 100.0
        )
    }
}

fn syncs(folder: &Path) -> Result<Latencies, Failure> {
    let path = folder.join("sync");
    let mut file = File::create(&path)?;
    let mut latencies = Latencies::default();
    for _ in 0..SYNCS {
        let started = Instant::now();
        file.write_all(&PAGE)?;
        file.sync_data()?;
        latencies.add(started.elapsed());
    }
    std::fs::remove_file(path)?;
    Ok(latencies)
}

/// The busy and all ticks of all processors so far.
fn times() -> Result<(f64, f64), Failure> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().ok_or("/proc/stat is empty")?;
    let ticks: Vec<f64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; what follows is contained in the first two.
    let all: f64 = ticks.iter().take(8).sum();
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    Ok((all - idle, all))
}

fn line_of(path: &str, name: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.split_once(':'));
    line.map_or_else(
        || "unknown".to_owned(),
        |(_, value)| value.trim().to_owned(),
    )
}

fn said_by(command: &[&str]) -> String {
    let said = Command::new(command[0]).args(&command[1..]).output();
    let text = said
        .map(|output| [output.stdout, output.stderr].concat())
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let first = text.lines().next().filter(|line| !line.is_empty());
    first.map_or_else(
        || format!("{} is not installed", command[0]),
        // Builds and copyright are of no interest.
        |line| {
            line.split(" malloc=")
                .next()
                .unwrap_or(line)
                .split(" [")
                .next()
                .unwrap_or(line)
                .to_owned()
        },
    )
}

/// Debian keeps the programs of PostgreSQL out of PATH.
fn postgres() -> String {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let newest = versions
        .filter_map(|folder| {
            folder
                .ok()?
                .file_name()
                .into_string()
                .ok()?
                .parse::<u32>()
                .ok()
        })
        .max();
    let path = newest.map(|version| format!("/usr/lib/postgresql/{version}/bin/postgres"));
    said_by(&[path.as_deref().unwrap_or("postgres"), "--version"])
}

fn free_bytes(folder: &Path) -> Result<u64, Failure> {
    let output = Command::new("df")
        .args(["--output=avail", "-B1"])
        .arg(folder)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let bytes = text
        .lines()
        .nth(1)
        .and_then(|line| line.trim().parse().ok());
    bytes.ok_or_else(|| "df does not say how much is free".into())
}
