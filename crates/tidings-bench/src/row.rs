//! A figure beside its baseline.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Latencies, ROWS, number};

/// Something that was measured, beside what it is compared with. Both are from the same run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The benchmark that it is of; set by what collects the rows.
    #[serde(default)]
    pub benchmark: String,
    /// What was measured.
    pub name: String,
    /// Of both figures.
    pub unit: String,
    /// Which figure would be the better one.
    pub better: Better,
    /// The figure of Tidings.
    pub ours: Figure,
    /// What it is compared with.
    pub baseline: Option<Baseline>,
    /// What is aimed at.
    #[serde(default)]
    pub targets: Vec<Target>,
    /// What else was seen, in a few words.
    #[serde(default)]
    pub note: String,
}

/// Which of two figures is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// The larger one, as of rates.
    More,
    /// The smaller one, as of times, bytes and processor time.
    Less,
}

/// A figure, and for a rate or a time what one in a hundred exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// In the unit of the row.
    pub value: f64,
    /// In milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
}

/// How often something was done, and how long the slowest hundredth took at least.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// How often a second.
    pub per_second: f64,
    /// How long one took, or what it was done with, at the 99th percentile.
    pub p99: Duration,
}

/// What a figure is compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// What was measured.
    pub name: String,
    /// What it reached, or why it was not measured.
    pub figure: Result<Figure, String>,
}

/// What is aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A ratio to the baseline of at least so much.
    Ratio(f64),
    /// At least so much, in the unit of the row.
    AtLeast(f64),
    /// At most so much, in the unit of the row.
    AtMost(f64),
    /// At most so many milliseconds at the 99th percentile.
    P99(f64),
}

impl Rate {
    /// So many within this time.
    pub fn new(count: usize, time: Duration, latencies: &Latencies) -> Self {
        Self {
            per_second: number(count) / time.as_secs_f64(),
            p99: latencies.p99(),
        }
    }
}

impl From<Rate> for Figure {
    fn from(rate: Rate) -> Self {
        Self {
            value: rate.per_second,
            p99_ms: Some(millis(rate.p99)),
        }
    }
}

/// The median, in milliseconds.
impl From<&Latencies> for Figure {
    fn from(latencies: &Latencies) -> Self {
        Self {
            value: millis(latencies.p50()),
            p99_ms: Some(millis(latencies.p99())),
        }
    }
}

impl From<f64> for Figure {
    fn from(value: f64) -> Self {
        Self {
            value,
            p99_ms: None,
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Row {
    fn new(name: &str, unit: &str, better: Better, ours: Figure) -> Self {
        Self {
            benchmark: String::new(),
            name: name.to_owned(),
            unit: unit.to_owned(),
            better,
            ours,
            baseline: None,
            targets: Vec::new(),
            note: String::new(),
        }
    }

    /// A rate, such as `events/s`.
    pub fn rate(name: &str, unit: &str, rate: Rate) -> Self {
        Self::new(name, unit, Better::More, rate.into())
    }

    /// How long something takes: the median of many times, in milliseconds.
    pub fn time(name: &str, latencies: &Latencies) -> Self {
        Self::new(name, "ms", Better::Less, latencies.into())
    }

    /// What something costs: bytes, processor time, or a time that was measured once.
    pub fn cost(name: &str, unit: &str, cost: f64) -> Self {
        Self::new(name, unit, Better::Less, cost.into())
    }

    /// Compares with a figure of the same run.
    #[must_use]
    pub fn beside(mut self, name: &str, figure: impl Into<Figure>) -> Self {
        self.baseline = Some(Baseline {
            name: name.to_owned(),
            figure: Ok(figure.into()),
        });
        self
    }

    /// Says why there is nothing to compare with.
    #[must_use]
    pub fn beside_nothing(mut self, name: &str, reason: &str) -> Self {
        self.baseline = Some(Baseline {
            name: name.to_owned(),
            figure: Err(reason.to_owned()),
        });
        self
    }

    /// Compares with a figure of the same run, if there is one.
    #[must_use]
    pub fn beside_if(self, name: &str, figure: Result<impl Into<Figure>, &str>) -> Self {
        match figure {
            Ok(figure) => self.beside(name, figure),
            Err(reason) => self.beside_nothing(name, reason),
        }
    }

    /// Adds a target.
    #[must_use]
    pub fn target(mut self, target: Target) -> Self {
        self.targets.push(target);
        self
    }

    /// Adds what else was seen.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// How good the figure is beside its baseline: 1 is as good, 2 twice as good, of a rate as of a cost.
    pub fn ratio(&self) -> Option<f64> {
        let baseline = self.baseline.as_ref()?.figure.as_ref().ok()?;
        let (over, under) = match self.better {
            Better::More => (self.ours.value, baseline.value),
            Better::Less => (baseline.value, self.ours.value),
        };
        let ratio = over / under;
        ratio.is_finite().then_some(ratio)
    }

    /// Whether a target is met; `None` if that cannot be said without a baseline.
    pub fn meets(&self, target: Target) -> Option<bool> {
        match target {
            Target::Ratio(least) => self.ratio().map(|ratio| ratio >= least),
            Target::AtLeast(least) => Some(self.ours.value >= least),
            Target::AtMost(most) => Some(self.ours.value <= most),
            Target::P99(most) => self.ours.p99_ms.map(|p99| p99 <= most),
        }
    }

    /// Prints the row, and appends it to the file in [`ROWS`] if that is set.
    ///
    /// # Panics
    ///
    /// If the row cannot be written.
    #[allow(clippy::print_stdout, reason = "for the person who runs one benchmark")]
    pub fn emit(self) {
        println!("{self}");
        if let Some(path) = std::env::var_os(ROWS) {
            let mut line = serde_json::to_string(&self).expect("a row is JSON");
            line.push('\n');
            let file = OpenOptions::new().create(true).append(true).open(&path);
            let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
            if let Err(error) = written {
                panic!("cannot write {}: {error}", path.display());
            }
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.abs() {
            0.0 => f.write_str("0"),
            ..0.0005 => write!(f, "{:.1e}", self.value),
            ..1.0 => write!(f, "{:.3}", self.value),
            ..10.0 => write!(f, "{:.2}", self.value),
            ..100.0 => write!(f, "{:.1}", self.value),
            _ => f.write_str(&grouped(self.value)),
        }
    }
}

/// A whole number with a comma before every three digits.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < 0.0 { "-" } else { "" }.to_owned();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ratio(least) => write!(f, "ratio ≥ {least:.2}"),
            Self::AtLeast(least) => write!(f, "≥ {}", Figure::from(least)),
            Self::AtMost(most) => write!(f, "≤ {}", Figure::from(most)),
            Self::P99(most) => write!(f, "p99 ≤ {} ms", Figure::from(most)),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.name, self.ours, self.unit)?;
        if let Some(p99) = self.ours.p99_ms {
            write!(f, " (p99 {} ms)", Figure::from(p99))?;
        }
        if let Some(Baseline { name, figure }) = &self.baseline {
            match figure {
                Ok(figure) => write!(f, ", {name} {figure}")?,
                Err(reason) => write!(f, ", {name} not measured: {reason}")?,
            }
        }
        if let Some(ratio) = self.ratio() {
            write!(f, ", ratio {ratio:.2}")?;
        }
        for target in &self.targets {
            let word = match self.meets(*target) {
                Some(true) => "met",
                Some(false) => "missed",
                None => "unknown",
            };
            write!(f, ", {target} {word}")?;
        }
        if !self.note.is_empty() {
            write!(f, "; {}", self.note)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: f64) -> Rate {
        Rate {
            per_second,
            p99: Duration::from_millis(3),
        }
    }

    #[test]
    fn a_ratio_over_one_is_better_of_a_rate_and_of_a_cost() {
        let faster = Row::rate("append", "events/s", rate(200.0)).beside("raw", rate(100.0));
        assert_eq!(faster.ratio(), Some(2.0));
        let smaller = Row::cost("a stream", "bytes", 500.0).beside("raw", 1000.0);
        assert_eq!(smaller.ratio(), Some(2.0));
        let free = Row::cost("a stream", "bytes", 0.0).beside("raw", 1000.0);
        assert_eq!(free.ratio(), None);
    }

    #[test]
    fn a_baseline_that_was_not_measured_says_why() {
        let row = Row::rate("append", "events/s", rate(200.0))
            .beside_nothing("wrk", "not installed")
            .target(Target::Ratio(0.5));
        assert_eq!(row.meets(Target::Ratio(0.5)), None);
        assert_eq!(
            row.to_string(),
            "append: 200 events/s (p99 3.00 ms), wrk not measured: not installed, ratio ≥ 0.50 unknown"
        );
    }

    #[test]
    fn targets_are_met_at_their_limit() {
        let row = Row::rate("append", "events/s", rate(200.0)).beside("raw", rate(400.0));
        for target in [
            Target::Ratio(0.5),
            Target::AtLeast(200.0),
            Target::AtMost(200.0),
            Target::P99(3.0),
        ] {
            assert_eq!(row.meets(target), Some(true), "{target}");
        }
        for target in [
            Target::Ratio(0.51),
            Target::AtLeast(201.0),
            Target::AtMost(199.0),
            Target::P99(2.9),
        ] {
            assert_eq!(row.meets(target), Some(false), "{target}");
        }
    }

    #[test]
    fn a_row_is_the_same_after_it_was_written_and_read() {
        let row = Row::time("live", &Latencies::from_iter([Duration::from_millis(2)]))
            .beside("alone", 1.5)
            .target(Target::P99(10.0))
            .note("10,000 streams");
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
    }

    #[test]
    fn figures_have_three_digits_or_all_before_the_point() {
        for (value, text) in [
            (0.0, "0"),
            (0.000_21, "2.1e-4"),
            (0.25, "0.250"),
            (7.106, "7.11"),
            (32.04, "32.0"),
            (1_234_567.8, "1,234,568"),
        ] {
            assert_eq!(Figure::from(value).to_string(), text);
        }
    }
}
