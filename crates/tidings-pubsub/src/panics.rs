//! Code of the program that is called from the tasks of a broker, and may panic: recorders of metrics,
//! tracing layers, wakers. A panic in it ends no task, for then subscriptions would fall silent for ever.
//!
//! Such code is called through [`catch`]. What is called out of sight, by other libraries that log, is
//! the business of the loop of each task, which treats a panic as a failure of the server.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls a function; `None` if it panicked.
pub(crate) fn catch<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}

#[cfg(all(test, any(feature = "postgres", feature = "redis")))]
pub(crate) use double::Panics;

#[cfg(all(test, any(feature = "postgres", feature = "redis")))]
mod double {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use metrics::{
        Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };
    use tracing::span::{Attributes, Id, Record};

    /// A recorder of metrics, or a tracing layer, that panics each time, and counts that.
    pub(crate) struct Panics(Arc<AtomicUsize>);

    impl Panics {
        pub(crate) fn counted(count: &Arc<AtomicUsize>) -> Self {
            Self(Arc::clone(count))
        }

        fn panic(&self) -> ! {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("as the test wants");
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

    impl Recorder for Panics {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(Arc::new(Self::counted(&self.0)))
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    impl tracing::Subscriber for Panics {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.target().starts_with("tidings_pubsub")
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
}
