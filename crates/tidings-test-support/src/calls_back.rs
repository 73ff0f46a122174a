//! A recorder of metrics that calls what it records.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

use crate::PATIENCE;

/// A recorder of metrics that calls back whenever something is recorded: what counts under a lock that the call
/// needs, waits for itself for ever.
///
/// Clones are the same recorder. A call that records something itself is not called back for that.
#[derive(Clone, Default)]
pub struct CallsBack(Arc<Inner>);

#[derive(Default)]
struct Inner {
    call: OnceLock<Box<dyn Fn() + Send + Sync>>,
    is_calling: AtomicBool,
    names: Mutex<BTreeSet<String>>,
}

impl CallsBack {
    /// Runs something on a thread of its own with such a recorder, and returns the names of the metrics at which
    /// it has called back.
    ///
    /// # Panics
    ///
    /// When it panics, or does not end.
    pub fn during(work: impl AsyncFnOnce(Self) + Send + 'static) -> BTreeSet<String> {
        let (ended, end) = mpsc::channel();
        std::thread::spawn(move || {
            let recorder = Self::default();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            metrics::with_local_recorder(&recorder, || runtime.block_on(work(recorder.clone())));
            let names = recorder.0.names.lock();
            let names = names.unwrap_or_else(PoisonError::into_inner).clone();
            // The test may have given up.
            drop(ended.send(names));
        });
        let names = end.recv_timeout(PATIENCE);
        names.expect("it ends, and a recorder that calls back waits for nothing")
    }

    /// What is called from now on.
    ///
    /// # Panics
    ///
    /// When there is a call already.
    pub fn call(&self, call: impl Fn() + Send + Sync + 'static) {
        assert!(self.0.call.set(Box::new(call)).is_ok(), "one call");
    }
}

impl fmt::Debug for CallsBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallsBack")
    }
}

impl Inner {
    fn record(&self, name: &str) {
        let Some(call) = self.call.get() else {
            return;
        };
        if !self.is_calling.swap(true, Ordering::SeqCst) {
            call();
            self.is_calling.store(false, Ordering::SeqCst);
            let names = self.names.lock();
            let mut names = names.unwrap_or_else(PoisonError::into_inner);
            names.insert(name.to_owned());
        }
    }
}

impl Recorder for CallsBack {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Metric::of(self, key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Metric::of(self, key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Metric::of(self, key))
    }
}

struct Metric {
    recorder: Arc<Inner>,
    name: String,
}

impl Metric {
    fn of(recorder: &CallsBack, key: &Key) -> Arc<Self> {
        Arc::new(Self {
            recorder: Arc::clone(&recorder.0),
            name: key.name().to_owned(),
        })
    }

    fn record(&self) {
        self.recorder.record(&self.name);
    }
}

impl CounterFn for Metric {
    fn increment(&self, _: u64) {
        self.record();
    }

    fn absolute(&self, _: u64) {
        self.record();
    }
}

impl GaugeFn for Metric {
    fn increment(&self, _: f64) {
        self.record();
    }

    fn decrement(&self, _: f64) {
        self.record();
    }

    fn set(&self, _: f64) {
        self.record();
    }
}

impl HistogramFn for Metric {
    fn record(&self, _: f64) {
        Metric::record(self);
    }
}
