//! What the recorder of metrics gets.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use ::metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    set_default_local_recorder,
};
use http::StatusCode;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tidings::circuit_breaker::CircuitBreakerConfig;
use tidings::{Client, Dispatcher, Endpoint, LaneConfig, telemetry};
use tidings_test_support::{Behaviour, Gate, Reply, Script, Unreachable};
use tokio::sync::mpsc;
use tokio::task::yield_now;

use crate::support::{HOUR, at_once, in_an_hour, receiver};

/// Everything that was recorded since the last look: how counters and gauges have changed, and how
/// many values went into histograms.
///
/// `name{label=value}` is how each is called.
fn recorded(snapshotter: &Snapshotter) -> BTreeMap<String, i64> {
    let metrics = snapshotter.snapshot().into_vec().into_iter();
    let named = metrics.map(|(key, _, _, value)| {
        let labels: Vec<_> = (key.key().labels())
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        let value = match value {
            DebugValue::Counter(count) => count.try_into().unwrap(),
            DebugValue::Gauge(value) => value.to_string().parse().unwrap(),
            DebugValue::Histogram(values) => values.len().try_into().unwrap(),
        };
        (
            format!("{}{{{}}}", key.key().name(), labels.join(",")),
            value,
        )
    });
    named.filter(|(_, value)| *value != 0).collect()
}

#[track_caller]
fn assert_recorded(snapshotter: &Snapshotter, expected: &[(&str, i64)]) {
    let expected = expected
        .iter()
        .map(|(name, value)| ((*name).to_owned(), *value));
    assert_eq!(recorded(snapshotter), expected.collect());
}

#[tokio::test]
async fn deliveries_and_their_attempts_are_counted_and_timed() {
    let recorder = DebuggingRecorder::new();
    let _local = set_default_local_recorder(&recorder);
    let busy = Reply::new(StatusCode::SERVICE_UNAVAILABLE);
    let script = Script::sequence([busy, Reply::ok()], Reply::new(StatusCode::NOT_FOUND));
    let receiver = receiver(script).await;
    let client = Client::builder(receiver.url("/"))
        .retry(at_once(2))
        .on_error(drop)
        .build()
        .unwrap();
    client.start();
    client.deliver("x").await.unwrap();
    client.deliver("x").await.unwrap_err();
    client.stop().await;
    client.notify("x").unwrap_err();
    assert_recorded(
        &recorder.snapshotter(),
        &[
            ("tidings.attempt.duration{http.response.status_code=200}", 1),
            (
                "tidings.attempt.duration{http.response.status_code=404,error.type=404}",
                1,
            ),
            (
                "tidings.attempt.duration{http.response.status_code=503,error.type=503}",
                1,
            ),
            ("tidings.delivery.attempts{}", 2),
            ("tidings.delivery.dropped{error.type=stopped}", 1),
            ("tidings.delivery.duration{}", 1),
            ("tidings.delivery.duration{error.type=404}", 1),
        ],
    );
}

#[tokio::test]
async fn how_many_requests_a_delivery_took_is_recorded_whatever_its_outcome() {
    let recorder = DebuggingRecorder::new();
    let _local = set_default_local_recorder(&recorder);
    let (ok, busy) = (Reply::ok(), Reply::new(StatusCode::SERVICE_UNAVAILABLE));
    let script = Script::sequence([ok, busy.clone(), Reply::ok(), busy.clone()], busy);
    let receiver = receiver(script).await;
    let client = Client::builder(receiver.url("/"))
        .retry(at_once(3))
        .on_error(drop)
        .build()
        .unwrap();
    client.start();
    client.deliver("x").await.unwrap();
    client.deliver("x").await.unwrap();
    client.deliver("x").await.unwrap_err();
    client.stop().await;
    let metrics = recorder.snapshotter().snapshot().into_vec().into_iter();
    let mut attempts = metrics.filter(|(key, ..)| key.key().name() == telemetry::DELIVERY_ATTEMPTS);
    let Some((_, _, _, DebugValue::Histogram(values))) = attempts.next() else {
        panic!("no histogram was recorded");
    };
    let values: Vec<f64> = values.into_iter().map(Into::into).collect();
    assert_eq!(values, [1.0, 2.0, 3.0]);
}

#[tokio::test]
async fn attempts_without_a_reply_are_counted_by_what_went_wrong() {
    let recorder = DebuggingRecorder::new();
    let _local = set_default_local_recorder(&recorder);
    let unreachable = Unreachable::refusing().unwrap();
    let hangs_up = receiver(Behaviour::HangUp).await;
    for url in [unreachable.url("/"), hangs_up.url("/")] {
        let client = Client::builder(url).on_error(drop).build().unwrap();
        client.start();
        client.deliver("x").await.unwrap_err();
        client.stop().await;
    }
    assert_recorded(
        &recorder.snapshotter(),
        &[
            ("tidings.attempt.duration{error.type=refused}", 1),
            ("tidings.attempt.duration{error.type=reset}", 1),
            ("tidings.delivery.attempts{}", 2),
            ("tidings.delivery.duration{error.type=refused}", 1),
            ("tidings.delivery.duration{error.type=reset}", 1),
        ],
    );
}

#[tokio::test]
async fn what_waits_and_what_is_under_way_are_gauges_that_return_to_zero() {
    let recorder = DebuggingRecorder::new();
    let _local = set_default_local_recorder(&recorder);
    let gate = Gate::new();
    let receiver = receiver(Reply::ok().after(gate.clone())).await;
    let lane = LaneConfig::default().with_queue_size(3);
    let dispatcher = Dispatcher::builder().lane(lane).build().unwrap();
    dispatcher.start();
    let endpoint = Endpoint::new(receiver.url("/")).unwrap();
    dispatcher.insert("a", endpoint);
    for _ in 0..3 {
        dispatcher.notify("a", "x").unwrap();
    }
    receiver.request(1).await;
    dispatcher.notify("a", "x").unwrap_err();
    dispatcher.notify("b", "x").unwrap_err();
    let snapshotter = recorder.snapshotter();
    assert_recorded(
        &snapshotter,
        &[
            ("tidings.delivery.dropped{error.type=queue_full}", 1),
            ("tidings.delivery.dropped{error.type=unknown_endpoint}", 1),
            ("tidings.delivery.in_flight{}", 1),
            ("tidings.delivery.queued{}", 2),
        ],
    );
    gate.open();
    dispatcher.stop().await;
    assert_recorded(
        &snapshotter,
        &[
            ("tidings.attempt.duration{http.response.status_code=200}", 3),
            ("tidings.delivery.attempts{}", 3),
            ("tidings.delivery.duration{}", 3),
            ("tidings.delivery.in_flight{}", -1),
            ("tidings.delivery.queued{}", -2),
        ],
    );
}

#[tokio::test]
async fn what_is_given_up_is_counted_as_dropped_and_leaves_no_gauge_behind() {
    let recorder = DebuggingRecorder::new();
    let _local = set_default_local_recorder(&recorder);
    let receiver = receiver(Behaviour::NeverReply).await;
    let lane = LaneConfig::default().with_retry(in_an_hour());
    let dispatcher = Dispatcher::builder()
        .lane(lane)
        .on_error(|_, _| {})
        .build()
        .unwrap();
    dispatcher.start();
    for id in ["a", "b"] {
        let endpoint = Endpoint::new(receiver.url("/")).unwrap();
        dispatcher.insert(id, endpoint);
        dispatcher.notify(id, "under way").unwrap();
        dispatcher.notify(id, "queued").unwrap();
    }
    receiver.request(2).await;
    dispatcher.remove("a").unwrap();
    dispatcher.stop_within(std::time::Duration::ZERO).await;
    assert_recorded(
        &recorder.snapshotter(),
        &[
            ("tidings.delivery.dropped{error.type=abandoned}", 3),
            ("tidings.delivery.dropped{error.type=removed}", 1),
        ],
    );
}

#[tokio::test]
async fn circuits_that_change_and_endpoints_that_are_gone_are_counted() {
    let recorder = DebuggingRecorder::new();
    let _local = set_default_local_recorder(&recorder);
    let failing = Reply::new(StatusCode::INTERNAL_SERVER_ERROR);
    let receiver = receiver(Script::sequence([failing], Reply::gone())).await;
    let breaker = CircuitBreakerConfig::default()
        .with_consecutive_failures(1)
        .with_open_for(HOUR / 10);
    let lane = LaneConfig::default()
        .without_retry()
        .with_circuit_breaker(breaker);
    let dispatcher = Dispatcher::builder().lane(lane).build().unwrap();
    dispatcher.start();
    let endpoint = Endpoint::new(receiver.url("/")).unwrap();
    dispatcher.insert("a", endpoint);
    dispatcher.deliver("a", "trips").await.unwrap_err();
    dispatcher
        .deliver("a", "meets an open circuit")
        .await
        .unwrap_err();
    dispatcher.close_circuit("a");
    dispatcher.deliver("a", "is gone").await.unwrap_err();
    dispatcher.deliver("a", "is refused").await.unwrap_err();
    assert_recorded(
        &recorder.snapshotter(),
        &[
            (
                "tidings.attempt.duration{http.response.status_code=410,error.type=410}",
                1,
            ),
            (
                "tidings.attempt.duration{http.response.status_code=500,error.type=500}",
                1,
            ),
            ("tidings.circuit.changes{tidings.circuit.state=closed}", 1),
            ("tidings.circuit.changes{tidings.circuit.state=open}", 1),
            ("tidings.delivery.attempts{}", 3),
            ("tidings.delivery.dropped{error.type=gone}", 1),
            ("tidings.delivery.duration{error.type=410}", 1),
            ("tidings.delivery.duration{error.type=500}", 1),
            ("tidings.delivery.duration{error.type=circuit_open}", 1),
            ("tidings.endpoint.gone{}", 1),
        ],
    );
    while dispatcher.queued() > 0 {
        yield_now().await;
    }
}

#[tokio::test]
async fn an_endpoint_that_asks_for_no_requests_for_long_is_counted() {
    let recorder = DebuggingRecorder::new();
    let _local = set_default_local_recorder(&recorder);
    let busy = Reply::new(StatusCode::TOO_MANY_REQUESTS).with_header("retry-after", "3600");
    let receiver = receiver(busy).await;
    let client = Client::new(receiver.url("/")).unwrap();
    client.start();
    client.deliver("asked").await.unwrap_err();
    client.deliver("meets the pause").await.unwrap_err();
    assert_recorded(
        &recorder.snapshotter(),
        &[
            (
                "tidings.attempt.duration{http.response.status_code=429,error.type=429}",
                1,
            ),
            ("tidings.delivery.attempts{}", 2),
            ("tidings.delivery.duration{error.type=429}", 1),
            ("tidings.delivery.duration{error.type=retry_after}", 1),
            ("tidings.endpoint.paused{}", 1),
        ],
    );
}

/// Looks at the client each time that something is recorded.
struct LooksAtTheClient {
    client: Arc<OnceLock<Client>>,
    looks: Arc<AtomicUsize>,
}

impl LooksAtTheClient {
    fn look(&self) {
        if let Some(client) = self.client.get() {
            client.queued();
            client.circuit_state();
            self.looks.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Recorder for LooksAtTheClient {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        self.look();
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        self.look();
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        self.look();
        Histogram::noop()
    }
}

#[tokio::test]
async fn a_recorder_may_use_the_client_that_it_records() {
    let recorder = LooksAtTheClient {
        client: Arc::default(),
        looks: Arc::default(),
    };
    let (slot, looks) = (Arc::clone(&recorder.client), Arc::clone(&recorder.looks));
    let _local = set_default_local_recorder(&recorder);
    let failing = Reply::new(StatusCode::INTERNAL_SERVER_ERROR);
    let receiver = receiver(failing).await;
    let breaker = CircuitBreakerConfig::default()
        .with_consecutive_failures(1)
        .with_open_for(HOUR / 10);
    let client = Client::builder(receiver.url("/"))
        .circuit_breaker(breaker)
        .on_error(drop)
        .build()
        .unwrap();
    slot.set(client.clone()).ok().unwrap();
    client.start();
    client.deliver("trips").await.unwrap_err();
    client.deliver("is refused").await.unwrap_err();
    client.stop().await;
    client.notify("x").unwrap_err();
    // At least the queue twice, an attempt, the circuit, two deliveries and a refusal.
    assert!(looks.load(Ordering::SeqCst) >= 7);
}

/// Panics each time that something is recorded about an attempt or a delivery.
struct Panics;

impl Recorder for Panics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        panic!("this is a test")
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        panic!("this is a test")
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        panic!("this is a test")
    }
}

#[tokio::test]
async fn a_recorder_that_panics_loses_no_outcome_and_no_worker() {
    let receiver = receiver(Reply::ok()).await;
    let breaker = CircuitBreakerConfig::default().with_consecutive_failures(1);
    let (report, mut reported) = mpsc::channel(10);
    let client = Client::builder(receiver.url("/"))
        .workers(1)
        .circuit_breaker(breaker)
        .on_delivered(move |delivered| report.try_send(delivered.message).unwrap())
        .build()
        .unwrap();
    let _local = set_default_local_recorder(&Panics);
    let early = client.notify("early").unwrap_err();
    assert_eq!(early.into_message().body(), "early");
    client.start();
    client.notify("first").unwrap();
    client.deliver("second").await.unwrap();
    assert_eq!(reported.recv().await.unwrap().body(), "first");
    client.stop().await;
    let late = client.deliver("late").await.unwrap_err();
    assert_eq!(late.into_message().body(), "late");
    assert_eq!(receiver.requests().len(), 2);
}

#[test]
fn every_metric_is_described_with_its_unit() {
    let recorder = DebuggingRecorder::new();
    ::metrics::with_local_recorder(&recorder, || {
        telemetry::describe_metrics();
        for name in [telemetry::ATTEMPT_DURATION, telemetry::DELIVERY_DURATION] {
            ::metrics::histogram!(name).record(1.0);
        }
    });
    for (key, unit, description, value) in recorder.snapshotter().snapshot().into_vec() {
        // Counters begin at zero.
        let expected = match value {
            DebugValue::Counter(0) => ::metrics::Unit::Count,
            DebugValue::Histogram(_) => ::metrics::Unit::Seconds,
            other => panic!("{key:?}: {other:?}"),
        };
        assert_eq!(unit, Some(expected), "{key:?}");
        assert!(description.is_some(), "{key:?}");
    }
}
