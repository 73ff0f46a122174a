//! What spans and events say, and what layers may do. It has a program of its own: whether a span is
//! enabled is decided once for all threads, and those of other tests would say no.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use http::StatusCode;
use tidings::circuit_breaker::CircuitBreakerConfig;
use tidings::retry::{RetryPolicy, Schedule};
use tidings::router::{InstanceRouter, URL_METADATA};
use tidings::signing::{Secret, StandardSigner};
use tidings::{Client, Dispatcher, Endpoint, LaneConfig, Message, telemetry};
use tidings_notify::{
    Draft, Epoch, Event, EventId, EventType, Payload, Router, RoutingInfo, UserId,
};
use tidings_test_support::{Receiver, Reply, Script};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// A span that has ended: its name, that of its parent, and its fields.
#[derive(Debug, Clone, Default)]
struct Ended {
    name: &'static str,
    parent: Option<&'static str>,
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Ended {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

/// Keeps the spans of the library.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Ended>>>);

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let mut ended = Ended {
            name: span.name(),
            parent: span.parent().map(|parent| parent.name()),
            ..Ended::default()
        };
        attributes.record(&mut ended);
        span.extensions_mut().insert(ended);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        values.record(span.extensions_mut().get_mut::<Ended>().unwrap());
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        if span.metadata().target().starts_with("tidings") {
            let ended = span.extensions().get::<Ended>().unwrap().clone();
            self.0.lock().unwrap().push(ended);
        }
    }
}

#[tokio::test]
async fn a_delivery_has_a_span_and_each_of_its_attempts_one_beneath_it() {
    let spans = Spans::default();
    // The level of the spans, and no more than that.
    let level = tracing_subscriber::filter::LevelFilter::DEBUG;
    let subscriber = tracing_subscriber::registry()
        .with(spans.clone())
        .with(level);
    let _default = tracing::subscriber::set_default(subscriber);
    let busy = Reply::new(StatusCode::SERVICE_UNAVAILABLE);
    let script = Script::sequence([busy], Reply::ok());
    let receiver = Receiver::start(script).await.unwrap();
    let twice = RetryPolicy::new(Schedule::new([Duration::ZERO]).unwrap());
    let lane = LaneConfig::default().with_retry(twice);
    let dispatcher = Dispatcher::builder().lane(lane).build().unwrap();
    dispatcher.start();
    let endpoint = Endpoint::new(receiver.url("/services/hidden?key=hidden")).unwrap();
    dispatcher.insert("billing", endpoint);
    let message = Message::from("x")
        .with_id("m-1")
        .unwrap()
        .with_type("invoice.paid");
    dispatcher.deliver("billing", message).await.unwrap();
    dispatcher.stop().await;

    let spans = spans.0.lock().unwrap().clone();
    let names: Vec<_> = spans.iter().map(|span| (span.name, span.parent)).collect();
    let attempt = ("attempt", Some("delivery"));
    assert_eq!(names, [attempt, attempt, ("delivery", None)]);
    assert!(!format!("{spans:?}").contains("hidden"), "{spans:?}");

    let delivery = &spans[2].fields;
    assert_eq!(delivery[telemetry::ENDPOINT_ID], "billing");
    assert_eq!(delivery[telemetry::MESSAGE_ID], "m-1");
    assert_eq!(delivery[telemetry::MESSAGE_TYPE], "invoice.paid");
    let (first, second) = (&spans[0].fields, &spans[1].fields);
    for attempt in [first, second] {
        assert_eq!(attempt[telemetry::HTTP_REQUEST_METHOD], "POST");
        assert_eq!(attempt[telemetry::SERVER_ADDRESS], "127.0.0.1");
        let port = receiver.address().port().to_string();
        assert_eq!(attempt[telemetry::SERVER_PORT], port);
        assert_eq!(attempt[telemetry::MESSAGE_ID], "m-1");
    }
    assert_eq!(first[telemetry::ATTEMPT], "1");
    assert_eq!(first[telemetry::HTTP_RESPONSE_STATUS_CODE], "503");
    assert_eq!(first[telemetry::ERROR_TYPE], "503");
    assert!(!first.contains_key(telemetry::HTTP_REQUEST_RESEND_COUNT));
    assert_eq!(second[telemetry::ATTEMPT], "2");
    assert_eq!(second[telemetry::HTTP_RESPONSE_STATUS_CODE], "200");
    assert_eq!(second[telemetry::HTTP_REQUEST_RESEND_COUNT], "1");
    assert!(!second.contains_key(telemetry::ERROR_TYPE));
}

/// Posts each warning through the client that it is about, and keeps the texts of warnings and of
/// information.
#[derive(Clone, Default)]
struct Posts {
    client: Arc<OnceLock<Client>>,
    texts: Arc<Mutex<Vec<String>>>,
}

impl<S: tracing::Subscriber> Layer<S> for Posts {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > tracing::Level::INFO {
            return;
        }
        let mut fields = Ended::default();
        event.record(&mut fields);
        self.texts.lock().unwrap().push(format!("{fields:?}"));
        if let Some(client) = self.client.get()
            && level == tracing::Level::WARN
        {
            // Refused or not: it must not hang.
            client.notify("a warning").ok();
        }
    }
}

#[tokio::test]
async fn a_layer_may_post_through_the_client_that_it_hears_of() {
    let posts = Posts::default();
    let subscriber = tracing_subscriber::registry().with(posts.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let failing = Reply::new(StatusCode::INTERNAL_SERVER_ERROR);
    let receiver = Receiver::start(failing).await.unwrap();
    let breaker = CircuitBreakerConfig::default()
        .with_consecutive_failures(1)
        .with_open_for(Duration::from_secs(3600));
    // Without an error callback failures are logged, which is a warning as well.
    let client = Client::builder(receiver.url("/services/secret?key=hidden"))
        .workers(1)
        .queue_size(2)
        .circuit_breaker(breaker)
        .build()
        .unwrap();
    posts.client.set(client.clone()).unwrap();
    client.start();
    let error = client.deliver("trips").await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::INTERNAL_SERVER_ERROR));
    let has_text = |text: &str| {
        let texts = posts.texts.lock().unwrap();
        texts.iter().any(|said| said.contains(text))
    };
    while !has_text("a message was not delivered") {
        tokio::task::yield_now().await;
    }
    assert!(has_text("the circuit opened"));
    let texts = format!("{:?}", posts.texts.lock().unwrap());
    assert!(
        !texts.contains("secret") && !texts.contains("hidden"),
        "{texts}"
    );
    client.stop_within(Duration::ZERO).await;
}

#[tokio::test]
async fn warnings_name_the_endpoint_if_it_has_a_name() {
    let posts = Posts::default();
    let subscriber = tracing_subscriber::registry().with(posts.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let failing = Reply::new(StatusCode::INTERNAL_SERVER_ERROR);
    let receiver = Receiver::start(failing).await.unwrap();
    let breaker = CircuitBreakerConfig::default().with_consecutive_failures(1);
    let lane = LaneConfig::default()
        .without_retry()
        .with_circuit_breaker(breaker);
    let dispatcher = Dispatcher::builder().lane(lane).build().unwrap();
    dispatcher.start();
    dispatcher.insert("billing", Endpoint::new(receiver.url("/")).unwrap());
    dispatcher.notify("billing", "x").unwrap();
    dispatcher.stop().await;
    let client = Client::builder(receiver.url("/"))
        .circuit_breaker(breaker)
        .build()
        .unwrap();
    client.start();
    client.notify("x").unwrap();
    client.stop().await;
    let texts = posts.texts.lock().unwrap();
    for text in ["the circuit opened", "a message was not delivered"] {
        let said: Vec<_> = texts.iter().filter(|said| said.contains(text)).collect();
        let named: Vec<_> = (said.iter())
            .map(|said| said.contains(telemetry::ENDPOINT_ID) && said.contains("billing"))
            .collect();
        assert_eq!(named, [true, false], "{said:?}");
        assert!(!said[1].contains(telemetry::ENDPOINT_ID), "{said:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_asks_for_no_requests_for_long_is_one_warning() {
    let posts = Posts::default();
    let subscriber = tracing_subscriber::registry().with(posts.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let busy = Reply::new(StatusCode::TOO_MANY_REQUESTS);
    for (seconds, warnings) in [("60", 0), ("3600", 1)] {
        let busy = busy.clone().with_header("retry-after", seconds);
        let receiver = Receiver::start(busy).await.unwrap();
        let client = Client::new(receiver.url("/")).unwrap();
        client.start();
        for _ in 0..3 {
            client.deliver("x").await.unwrap_err();
        }
        let texts = posts.texts.lock().unwrap();
        let said = texts
            .iter()
            .filter(|said| said.contains("asks for no requests"));
        let said: Vec<_> = said.collect();
        assert_eq!(said.len(), warnings, "{said:?}");
        assert!(said.iter().all(|said| said.contains(seconds)), "{said:?}");
    }
}

#[tokio::test]
async fn circuits_that_open_and_close_are_logged_unless_that_was_done_by_hand() {
    let posts = Posts::default();
    let subscriber = tracing_subscriber::registry().with(posts.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let failing = Reply::new(StatusCode::INTERNAL_SERVER_ERROR);
    let receiver = Receiver::start(Script::sequence([failing], Reply::ok()));
    let receiver = receiver.await.unwrap();
    let breaker = CircuitBreakerConfig::default()
        .with_consecutive_failures(1)
        .with_open_for(Duration::from_millis(1))
        .with_ramp(1);
    let at_once = RetryPolicy::new(Schedule::new([Duration::from_millis(1)]).unwrap());
    let lane = LaneConfig::default()
        .with_retry(at_once)
        .with_circuit_breaker(breaker);
    let dispatcher = Dispatcher::builder().lane(lane).build().unwrap();
    dispatcher.start();
    dispatcher.insert("billing", Endpoint::new(receiver.url("/")).unwrap());
    assert!(dispatcher.open_circuit("billing"));
    assert!(dispatcher.close_circuit("billing"));
    assert!(posts.texts.lock().unwrap().is_empty());
    dispatcher.deliver("billing", "x").await.unwrap();
    dispatcher.stop().await;
    let texts = posts.texts.lock().unwrap();
    let logged = ["the circuit opened", "the circuit closed"];
    let logged = logged.map(|text| texts.iter().any(|said| said.contains(text)));
    assert_eq!((logged, texts.len()), ([true; 2], 2), "{texts:?}");
    assert!(texts.iter().all(|said| said.contains("billing")));
}

#[tokio::test]
async fn a_callback_that_panics_is_logged_by_its_name() {
    let posts = Posts::default();
    let subscriber = tracing_subscriber::registry().with(posts.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let receiver = Receiver::start(Reply::new(StatusCode::NOT_FOUND));
    let client = Client::builder(receiver.await.unwrap().url("/"))
        .on_error(|_| panic!("this is a test"))
        .build()
        .unwrap();
    client.start();
    client.notify("x").unwrap();
    client.stop().await;
    let texts = posts.texts.lock().unwrap();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].contains("on_error panicked"), "{texts:?}");
}

#[tokio::test]
async fn the_traces_of_an_instance_do_not_show_its_url() {
    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let receiver = Receiver::start(Reply::ok()).await.unwrap();
    let signer = StandardSigner::new([Secret::generate()]).unwrap();
    let router = InstanceRouter::builder(signer).build().unwrap();
    router.start();
    let url = receiver.url("/?key=hidden");
    let to = RoutingInfo {
        instance_id: "one".to_owned(),
        metadata: [(URL_METADATA.to_owned(), url)].into(),
    };
    let draft = Draft::new(
        UserId::new("alice").unwrap(),
        EventType::new("greeting").unwrap(),
        Payload::parse("{}").unwrap(),
    );
    let event = Event::from_draft(draft, EventId::new(Epoch::random(), 1));
    router.route(&to, &event).await.unwrap();
    router.stop().await;
    let spans = spans.0.lock().unwrap().clone();
    let delivery = spans.iter().find(|span| span.name == "delivery").unwrap();
    assert_eq!(delivery.fields[telemetry::ENDPOINT_ID], "one");
    assert!(!format!("{spans:?}").contains("hidden"), "{spans:?}");
}

/// What a layer is told of a span.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    New,
    Record,
    Enter,
    Exit,
    Close,
}

/// Panics when it is told something of a span.
struct Panics {
    told: Told,
    count: Arc<AtomicUsize>,
}

impl Panics {
    fn told(&self, told: Told) {
        if told == self.told {
            self.count.fetch_add(1, Ordering::Relaxed);
            panic!("this is a test");
        }
    }
}

impl<S: tracing::Subscriber> Layer<S> for Panics {
    fn on_new_span(&self, _: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        self.told(Told::New);
    }

    fn on_record(&self, _: &Id, _: &Record<'_>, _: Context<'_, S>) {
        self.told(Told::Record);
    }

    fn on_enter(&self, _: &Id, _: Context<'_, S>) {
        self.told(Told::Enter);
    }

    fn on_exit(&self, _: &Id, _: Context<'_, S>) {
        self.told(Told::Exit);
    }

    fn on_close(&self, _: Id, _: Context<'_, S>) {
        self.told(Told::Close);
    }
}

#[tokio::test]
async fn a_layer_that_panics_changes_no_outcome() {
    for told in [
        Told::New,
        Told::Record,
        Told::Enter,
        Told::Exit,
        Told::Close,
    ] {
        let receiver = Receiver::start(Reply::ok()).await.unwrap();
        let client = Client::builder(receiver.url("/"))
            .workers(1)
            .build()
            .unwrap();
        client.start();
        let count = Arc::new(AtomicUsize::new(0));
        let layer = Panics {
            told,
            count: Arc::clone(&count),
        };
        {
            let subscriber = tracing_subscriber::registry().with(layer);
            let _default = tracing::subscriber::set_default(subscriber);
            for body in ["x", "y"] {
                let delivered = client.deliver(body).await.unwrap();
                assert_eq!(delivered.attempt_count(), 1, "{told:?}");
            }
        }
        assert!(count.load(Ordering::Relaxed) > 0, "{told:?}");
        client.deliver("z").await.unwrap();
        client.stop().await;
        assert_eq!(receiver.requests().len(), 3, "{told:?}");
    }
}
