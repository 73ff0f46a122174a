//! A recorder of metrics and a tracing layer that panic.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use tracing::span::{Attributes, Id, Record};

/// A recorder of metrics and a tracing subscriber that panic each time, and count that.
///
/// Clones count together. As a subscriber it hears events from INFO on, of one package, and no spans.
#[derive(Clone)]
pub struct Panics(Arc<Inner>);

struct Inner {
    package: &'static str,
    count: AtomicUsize,
}

impl Panics {
    /// Panics at events of a package, as its name is written in Rust, and at metrics of every package.
    pub fn at(package: &'static str) -> Self {
        let count = AtomicUsize::new(0);
        Self(Arc::new(Inner { package, count }))
    }

    /// How often it has panicked.
    pub fn count(&self) -> usize {
        self.0.count.load(Ordering::SeqCst)
    }

    fn panic(&self) -> ! {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        panic!("as the test wants");
    }
}

impl fmt::Debug for Panics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Panics")
    }
}

impl Recorder for Panics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(self.clone()))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(self.clone()))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(self.clone()))
    }
}

impl CounterFn for Panics {
    fn increment(&self, _: u64) {
        self.panic();
    }

    fn absolute(&self, _: u64) {
        self.panic();
    }
}

impl GaugeFn for Panics {
    fn increment(&self, _: f64) {
        self.panic();
    }

    fn decrement(&self, _: f64) {
        self.panic();
    }

    fn set(&self, _: f64) {
        self.panic();
    }
}

impl HistogramFn for Panics {
    fn record(&self, _: f64) {
        self.panic();
    }
}

impl tracing::Subscriber for Panics {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event()
            && *metadata.level() <= tracing::Level::INFO
            && metadata.target().starts_with(self.0.package)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.panic();
    }

    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
