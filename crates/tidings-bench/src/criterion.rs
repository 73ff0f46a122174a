//! What criterion has measured.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::{ROWS, Rate, number};

/// The samples of one function, as criterion keeps them: how often it ran in each, and the nanoseconds of all.
#[derive(Deserialize)]
struct Samples {
    iters: Vec<f64>,
    times: Vec<f64>,
}

/// How often a second a function of a group ran, which did `each` things at a time. The time of the slowest
/// hundredth is of the samples, each of which is a mean of many calls. `None` if no rows are wanted.
///
/// # Panics
///
/// If criterion has not measured it, below the directory in `CRITERION_HOME`.
pub fn rate(group: &str, function: &str, each: usize) -> Option<Rate> {
    std::env::var_os(ROWS)?;
    let home = std::env::var_os("CRITERION_HOME").expect("scripts/bench sets it");
    let path = PathBuf::from(home)
        .join(group)
        .join(function)
        .join("new/sample.json");
    let text = std::fs::read_to_string(&path);
    let text = text.unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let samples: Samples = serde_json::from_str(&text).expect("criterion has written it");
    Some(samples.rate(each))
}

impl Samples {
    fn rate(&self, each: usize) -> Rate {
        let times = self.times.iter().zip(&self.iters);
        let latencies = times
            .map(|(time, iterations)| Duration::from_secs_f64(time / 1e9 / iterations))
            .collect::<crate::Latencies>();
        let (iterations, time): (f64, f64) = (self.iters.iter().sum(), self.times.iter().sum());
        Rate {
            per_second: iterations * number(each) / (time / 1e9),
            p99: latencies.p99(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_counts_what_each_call_does() {
        let samples = Samples {
            iters: vec![1.0, 3.0],
            times: vec![1_000_000.0, 3_000_000.0],
        };
        let rate = samples.rate(10);
        assert!((rate.per_second - 10_000.0).abs() < 1e-6);
        assert_eq!(rate.p99, Duration::from_millis(1));
    }
}
