//! Spans that cost nothing but themselves when a tracing layer panics.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;

use tracing::field::Value;
use tracing::level_filters::LevelFilter;

use crate::panics::catch;

/// A span, or nothing when it is disabled. A layer that panics when the span is made, entered, left,
/// written to or closed loses what it wanted to record; what runs within the span goes on.
#[derive(Debug)]
pub(crate) struct Span(Option<tracing::Span>);

impl Span {
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    /// Makes the span if any subscriber wants spans. For loggers of `log`, a library that enables
    /// them in `tracing` would have every span formatted, wanted or not, at a tenth of the cost of a
    /// delivery.
    pub(crate) fn new(make: impl FnOnce() -> tracing::Span) -> Self {
        if LevelFilter::current() < LevelFilter::DEBUG {
            return Self::none();
        }
        Self(catch(make).filter(|span| !span.is_disabled()))
    }

    pub(crate) const fn is_none(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn record(&self, field: &'static str, value: impl Value) {
        if let Some(span) = &self.0 {
            catch(|| span.record(field, value));
        }
    }

    /// Calls a function within the span.
    pub(crate) fn in_scope<T>(&self, call: impl FnOnce() -> T) -> T {
        let Some(span) = &self.0 else {
            return call();
        };
        let entered = catch(|| span.enter());
        // A layer that panicked on leaving the span while a panic is under way would end the program.
        let result = catch_unwind(AssertUnwindSafe(call));
        catch(|| drop(entered));
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Waits for a future within the span.
    pub(crate) async fn around<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        if self.is_none() {
            return future.await;
        }
        poll_fn(|context| self.in_scope(|| future.as_mut().poll(context))).await
    }
}

impl Clone for Span {
    fn clone(&self) -> Self {
        Self(self.0.as_ref().and_then(|span| catch(|| span.clone())))
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let span = self.0.take();
        if span.is_some() {
            catch(|| drop(span));
        }
    }
}
