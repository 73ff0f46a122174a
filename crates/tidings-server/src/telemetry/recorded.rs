//! What was recorded, by metric and labels. A duration is counted in its bucket at once.

use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use metrics::{Counter, Gauge, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeMetric, GaugeValueEncoder,
};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;
use rustc_hash::FxHashMap;

/// Upper bounds of what a caller waits for.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Upper bounds of deliveries, which are retried for days.
const DAYS: &[f64] = &[
    0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21_600.0, 86_400.0,
    259_200.0,
];

/// Upper bounds of numbers of attempts.
const ATTEMPTS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 20.0, 100.0];

fn upper_bounds(name: &str) -> &'static [f64] {
    match name {
        tidings::telemetry::DELIVERY_DURATION => DAYS,
        tidings::telemetry::DELIVERY_ATTEMPTS => ATTEMPTS,
        _ => SECONDS,
    }
}

/// Everything that the packages have recorded since the start of the process.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    described: Table<KeyName, Description>,
    counters: Table<Key, Arc<AtomicU64>>,
    /// The bits of floating-point numbers.
    gauges: Table<Key, Arc<AtomicU64>>,
    histograms: Table<Key, Arc<Buckets>>,
}

#[derive(Debug, Clone)]
struct Description {
    unit: Option<metrics::Unit>,
    text: SharedString,
}

#[derive(Debug)]
struct Buckets(Histogram);

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        self.0.observe(value);
    }
}

/// What is looked up often, and seldom added.
#[derive(Debug)]
struct Table<K, V>(RwLock<FxHashMap<K, V>>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

// A table is whole after every statement, so a poisoned lock is still right.
impl<K: Clone + Eq + Hash, V: Clone> Table<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.get(key).cloned()
    }

    fn set(&self, key: K, value: V) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.insert(key, value);
    }

    fn get_or_add(&self, key: &K, new: impl FnOnce() -> V) -> V {
        self.get(key).unwrap_or_else(|| {
            let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
            table.entry(key.clone()).or_insert_with(new).clone()
        })
    }

    fn entries(&self) -> Vec<(K, V)> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let entries = table.iter();
        entries
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, name: KeyName, unit: Option<metrics::Unit>, text: SharedString) {
        self.described.set(name, Description { unit, text });
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<metrics::Unit>, text: SharedString) {
        self.described.set(name, Description { unit, text });
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<metrics::Unit>, text: SharedString) {
        self.described.set(name, Description { unit, text });
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.counters.get_or_add(key, Arc::default))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.gauges.get_or_add(key, Arc::default))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> metrics::Histogram {
        let empty = || {
            let bounds = upper_bounds(key.name()).iter().copied();
            Arc::new(Buckets(Histogram::new(bounds)))
        };
        metrics::Histogram::from_arc(self.histograms.get_or_add(key, empty))
    }
}

impl Collector for Recorded {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counter = |it: &Arc<AtomicU64>| ConstCounter::new(it.load(Ordering::Relaxed));
        let gauge = |it: &Arc<AtomicU64>| {
            ConstGauge::new(Number(f64::from_bits(it.load(Ordering::Relaxed))))
        };
        let histogram = |it: &Arc<Buckets>| it.0.clone();
        self.write(&mut encoder, self.counters.entries(), counter)?;
        self.write(&mut encoder, self.gauges.entries(), gauge)?;
        self.write(&mut encoder, self.histograms.entries(), histogram)
    }
}

impl Recorded {
    /// Writes the metrics of a kind, each with all its labels.
    fn write<V, M: EncodeMetric>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        mut series: Vec<(Key, V)>,
        metric: impl Fn(&V) -> M,
    ) -> fmt::Result {
        series.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for family in series.chunk_by(|(one, _), (other, _)| one.name() == other.name()) {
            let name = family[0].0.name();
            let described = self.described.get(&KeyName::from(name.to_owned()));
            let (unit, text) = described.map_or((None, "".into()), |it| (it.unit, it.text));
            let unit = unit.filter(|unit| *unit == metrics::Unit::Seconds);
            let unit = unit.map(|_seconds| Unit::Seconds);
            let (name, kind) = (shown(name), metric(&family[0].1).metric_type());
            let mut family_encoder =
                encoder.encode_descriptor(&name, &text, unit.as_ref(), kind)?;
            for (key, value) in family {
                let labels = key.labels();
                let labels: Vec<_> = labels.map(|it| (shown(it.key()), it.value())).collect();
                metric(value).encode(family_encoder.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// The value of a gauge, which the other clients of Prometheus write without a point if it is whole.
#[derive(Debug)]
struct Number(f64);

impl EncodeGaugeValue for Number {
    fn encode(&self, encoder: &mut GaugeValueEncoder<'_>) -> fmt::Result {
        #[expect(clippy::cast_possible_truncation, reason = "it is less than 2^53")]
        let whole = (self.0.fract() == 0.0 && self.0.abs() < MAX_WHOLE).then_some(self.0 as i64);
        match whole {
            Some(whole) => whole.encode(encoder),
            None => self.0.encode(encoder),
        }
    }
}

/// From 2^53 on, not every whole number has a floating-point number of its own.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

/// How Prometheus writes the name of a metric or a label.
fn shown(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use metrics::{counter, describe_counter, describe_histogram, gauge, histogram};
    use prometheus_client::encoding::prometheus_text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn the_text_has_each_metric_once_with_all_its_series() {
        let recorded = Arc::<Recorded>::default();
        metrics::with_local_recorder(&recorded, || {
            describe_counter!("a.sent", metrics::Unit::Count, "What was sent.");
            describe_histogram!("a.sent.duration", metrics::Unit::Seconds, "How long.");
            counter!("a.sent", "error.type" => "say \"no\"").increment(2);
            counter!("a.sent").increment(1);
            counter!("a.sent").increment(1);
            let open = gauge!("a.open");
            open.increment(3.0);
            gauge!("a.open").decrement(1.0);
            gauge!("a.size").set(1.5);
            histogram!("a.sent.duration").record(0.002);
            histogram!("a.sent.duration").record(0.0025);
            histogram!("a.sent.duration").record(90.0);
        });
        let mut registry = Registry::default();
        registry.register_collector(Box::new(recorded));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let (families, buckets) = text.split_once("# HELP a_sent_duration_seconds ").unwrap();
        let expected = "# HELP a_sent_total What was sent.\n\
            # TYPE a_sent_total counter\n\
            a_sent_total 2\n\
            a_sent_total{error_type=\"say \\\"no\\\"\"} 2\n\
            # HELP a_open \n\
            # TYPE a_open gauge\n\
            a_open 2\n\
            # HELP a_size \n\
            # TYPE a_size gauge\n\
            a_size 1.5\n";
        assert_eq!(families, expected);
        let lines: Vec<_> = buckets.lines().collect();
        assert_eq!(
            lines[..2],
            ["How long.", "# TYPE a_sent_duration_seconds histogram"]
        );
        for line in [
            "a_sent_duration_seconds_bucket{le=\"0.001\"} 0",
            "a_sent_duration_seconds_bucket{le=\"0.0025\"} 2",
            "a_sent_duration_seconds_bucket{le=\"60\"} 2",
            "a_sent_duration_seconds_bucket{le=\"+Inf\"} 3",
            "a_sent_duration_seconds_count 3",
            "a_sent_duration_seconds_sum 90.0045",
        ] {
            assert!(lines.contains(&line), "{line}: {lines:#?}");
        }
    }
}
