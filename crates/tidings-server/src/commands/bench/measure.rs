//! Rates and latencies.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use sketches_ddsketch::{Config, DDSketch};

/// How long something took, many times, in bounded memory. A quantile is exact to one percent.
pub(super) struct Latencies(DDSketch);

impl Default for Latencies {
    fn default() -> Self {
        Self(DDSketch::new(Config::defaults()))
    }
}

impl Latencies {
    pub(super) fn add(&mut self, latency: Duration) {
        self.0.add(latency.as_secs_f64() * 1000.0);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        // Refused only if the two were made differently.
        let _merged = self.0.merge(&other.0);
    }

    fn quantile(&self, quantile: f64) -> f64 {
        // Refused only outside 0 to 1.
        let found = self.0.quantile(quantile).ok().flatten();
        found.unwrap_or_default()
    }
}

/// One way of a notification, measured. Latencies are in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    count: u64,
    per_second: f64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// How many did not arrive.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<u64>,
    /// How many arrived once more.
    #[serde(skip_serializing_if = "Option::is_none")]
    repeated: Option<u64>,
}

impl Measured {
    pub(super) fn new(latencies: &Latencies, duration: Duration) -> Self {
        let count = latencies.0.count();
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        Self {
            count: u64::try_from(count).unwrap_or(u64::MAX),
            per_second: rounded(super::count_as_f64(count) / duration.as_secs_f64()),
            p50_ms: rounded(latencies.quantile(0.5)),
            p90_ms: rounded(latencies.quantile(0.9)),
            p99_ms: rounded(latencies.quantile(0.99)),
            max_ms: rounded(latencies.0.max().unwrap_or_default()),
            missing: None,
            repeated: None,
        }
    }

    pub(super) fn with_missing(mut self, missing: u64, repeated: u64) -> Self {
        self.missing = Some(missing);
        self.repeated = Some(repeated);
        self
    }

    pub(super) fn missing(&self) -> Option<u64> {
        self.missing
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            count,
            per_second,
            p50_ms,
            p90_ms,
            p99_ms,
            max_ms,
            missing,
            repeated,
        } = self;
        write!(
            f,
            "{count} · {per_second:.0}/s · p50 {p50_ms:.1} ms · p90 {p90_ms:.1} ms · p99 {p99_ms:.1} ms · \
             max {max_ms:.1} ms"
        )?;
        match (missing, repeated) {
            (Some(missing), Some(repeated)) => {
                write!(f, " · {missing} missing, {repeated} repeated")
            }
            _ => Ok(()),
        }
    }
}
