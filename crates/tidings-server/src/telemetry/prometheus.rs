//! The recorder of this process, and its text for Prometheus.

use std::sync::{Arc, OnceLock};

use metrics::SetRecorderError;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;
use tokio::task::JoinError;

use super::recorded::Recorded;

pub(crate) use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

/// The recorder of this process, of which there can be one.
static RECORDER: OnceLock<Result<Recorder, SetRecorderError<Arc<Recorded>>>> = OnceLock::new();

#[derive(Debug)]
struct Recorder {
    metrics: Arc<Registry>,
    /// Held while the text is made, so that many callers cost as much as one.
    turn: Arc<Mutex<()>>,
}

/// Makes the recorder, if the process has none. Gauges are recorded as changes, so the recorder must be there before
/// a server starts.
pub(crate) fn install() -> Result<(), &'static SetRecorderError<Arc<Recorded>>> {
    RECORDER.get_or_init(make).as_ref().map(|_| ())
}

fn make() -> Result<Recorder, SetRecorderError<Arc<Recorded>>> {
    let recorded = Arc::<Recorded>::default();
    let mut metrics = Registry::default();
    metrics.register_collector(Box::new(Arc::clone(&recorded)));
    metrics::set_global_recorder(recorded)?;
    super::describe_metrics();
    Ok(Recorder {
        metrics: Arc::new(metrics),
        turn: Arc::default(),
    })
}

/// All metrics as text. `None` if this process has no recorder, or one of another program.
///
/// # Cancel safety
///
/// A dropped call continues, and the next one waits for it: there is never more than one.
pub(crate) async fn render() -> Option<Result<String, JoinError>> {
    let recorder = RECORDER.get()?.as_ref().ok()?;
    let turn = Arc::clone(&recorder.turn).lock_owned().await;
    let metrics = Arc::clone(&recorder.metrics);
    let text = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        // A string takes all there is, and nothing else fails.
        let _written = prometheus_text::encode(&mut text, &metrics);
        drop(turn);
        text
    });
    Some(text.await)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};

    use tidings_notify::telemetry::{ROUTING_DROPPED, ROUTING_FAILED, ROUTING_SENT};
    use tidings_stream::telemetry::SENT;

    use super::super::describe_metrics;

    /// What other programs have: the server has no router, and publishes to streams in transactions of its own. A metric
    /// that is described and never recorded is not shown.
    const OF_OTHERS: [&str; 4] = [ROUTING_SENT, ROUTING_FAILED, ROUTING_DROPPED, SENT];

    /// Keeps what is described of the server: kind and text, by the name that Prometheus shows.
    #[derive(Debug, Default)]
    struct Described(Mutex<BTreeMap<String, (&'static str, String)>>);

    impl Described {
        fn add(&self, kind: &'static str, name: &KeyName, unit: Option<Unit>, text: &str) {
            if OF_OTHERS.contains(&name.as_str()) {
                return;
            }
            let mut shown = name.as_str().replace('.', "_");
            match unit {
                Some(Unit::Seconds) => shown.push_str("_seconds"),
                Some(Unit::Count) => {}
                unit => panic!("{shown}: {unit:?}"),
            }
            if kind == "counter" {
                shown.push_str("_total");
            }
            let before = self
                .0
                .lock()
                .unwrap()
                .insert(shown, (kind, text.to_owned()));
            assert_eq!(before, None, "{name:?} is described twice");
        }
    }

    impl metrics::Recorder for Described {
        fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
            self.add("counter", &name, unit, &text);
        }

        fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
            self.add("gauge", &name, unit, &text);
        }

        fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
            self.add("histogram", &name, unit, &text);
        }

        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::noop()
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn the_documentation_lists_every_metric_and_no_other() {
        let described = Described::default();
        metrics::with_local_recorder(&described, describe_metrics);
        let page = include_str!("../../../../docs/operations.md");
        let listed: BTreeMap<_, _> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter_map(|line| {
                let cells: Vec<_> = line.split(" | ").collect();
                let [name, kind, _labels, text] = cells[..] else {
                    return None;
                };
                let name = name.strip_suffix('`').unwrap();
                let text = text.strip_suffix(" |").unwrap();
                Some((name.to_owned(), (kind, text.to_owned())))
            })
            .collect();
        let described = described.0.into_inner().unwrap();
        assert!(described.len() > 20, "{described:?}");
        assert_eq!(listed, described);
    }
}
