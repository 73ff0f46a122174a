//! What a durable queue builds on: every accepted message leads to one outcome, which says what was
//! tried and when it makes sense to try again.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Mutex;

use tidings::{Delivered, Message};
use tidings_test_support::{Receiver, Script};
use tokio::time::Instant;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Delivered { attempts: usize },
    Failed { attempts: usize },
}

/// The outcomes by message, and the numbers of the attempts that were reported.
#[derive(Default)]
struct Reports {
    outcomes: HashMap<String, Vec<Outcome>>,
    attempts: HashMap<String, Vec<u32>>,
}

fn reporting(builder: DispatcherBuilder) -> (Dispatcher, Arc<Mutex<Reports>>) {
    let reports = Arc::new(Mutex::new(Reports::default()));
    let (attempts, succeeded, failed) = (reports.clone(), reports.clone(), reports.clone());
    let outcome = |reports: &Mutex<Reports>, message: &Message, outcome| {
        let mut reports = reports.lock().unwrap();
        let outcomes = reports.outcomes.entry(message.id().to_owned());
        outcomes.or_default().push(outcome);
    };
    let dispatcher = builder
        .on_attempt(move |_, message, attempt| {
            let mut reports = attempts.lock().unwrap();
            assert!(!reports.outcomes.contains_key(message.id()));
            let numbers = reports.attempts.entry(message.id().to_owned());
            numbers.or_default().push(attempt.number);
        })
        .on_delivered(move |_, delivered: Delivered| {
            let attempts = delivered.attempts.len();
            outcome(
                &succeeded,
                &delivered.message,
                Outcome::Delivered { attempts },
            );
        })
        .on_error(move |_, error| {
            let attempts = error.attempts().len();
            assert_eq!(error.was_attempted(), attempts > 0);
            outcome(&failed, error.message(), Outcome::Failed { attempts });
        })
        .build()
        .unwrap();
    dispatcher.start();
    (dispatcher, reports)
}

fn once() -> LaneConfig {
    LaneConfig::default().without_retry()
}

fn to(receiver: &Receiver) -> Endpoint {
    Endpoint::new(receiver.url("/")).unwrap()
}

/// Refuses with a status, and asks for no requests for some seconds.
fn pausing(status: StatusCode, seconds: &'static str) -> Reply {
    Reply::new(status).with_header("retry-after", seconds)
}

#[tokio::test]
async fn every_accepted_message_leads_to_exactly_one_outcome() {
    let server = Server::start().await;
    let (dispatcher, reports) = reporting(Dispatcher::builder().lane(at_once(3)));
    for (id, path) in [
        ("ok", "/ok"),
        ("permanent", "/status/404"),
        ("busy", "/status/503"),
    ] {
        dispatcher.insert(id, server.endpoint(path));
    }
    let with_breaker = once().with_circuit_breaker(CircuitBreakerConfig::default());
    dispatcher
        .insert_with("open", server.endpoint("/ok"), &with_breaker)
        .unwrap();
    dispatcher.open_circuit("open");
    for number in 0..10 {
        for id in ["ok", "permanent", "busy", "open"] {
            let message = Message::from("x")
                .with_id(format!("{id}-{number}"))
                .unwrap();
            if number % 2 == 0 {
                dispatcher.notify(id, message).unwrap();
            } else {
                dispatcher.enqueue(id, message).await.unwrap();
            }
        }
    }
    dispatcher.stop().await;
    let reports = reports.lock().unwrap();
    assert_eq!(reports.outcomes.len(), 40);
    for number in 0..10 {
        for (id, expected, attempts) in [
            ("ok", Outcome::Delivered { attempts: 1 }, vec![1]),
            ("permanent", Outcome::Failed { attempts: 1 }, vec![1]),
            ("busy", Outcome::Failed { attempts: 3 }, vec![1, 2, 3]),
            ("open", Outcome::Failed { attempts: 0 }, vec![]),
        ] {
            let id = format!("{id}-{number}");
            assert_eq!(reports.outcomes[&id], [expected], "{id}");
            let numbers = reports.attempts.get(&id).cloned().unwrap_or_default();
            assert_eq!(numbers, attempts, "{id}");
        }
    }
}

#[tokio::test]
async fn deliver_returns_the_outcome_and_reports_only_what_its_caller_no_longer_waits_for() {
    let gate = Gate::new();
    let script = Script::sequence([Reply::ok()], Reply::ok().after(gate.clone()));
    let receiver = receiver(script).await;
    let (dispatcher, reports) = reporting(Dispatcher::builder());
    dispatcher.insert("a", to(&receiver));
    dispatcher.deliver("a", "waited for").await.unwrap();
    let message = Message::from("x").with_id("dropped").unwrap();
    let mut waiting = Box::pin(dispatcher.deliver("a", message));
    assert!(support::is_pending(waiting.as_mut()).await);
    receiver.request(2).await;
    drop(waiting);
    gate.open();
    dispatcher.stop().await;
    let outcomes = &reports.lock().unwrap().outcomes;
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes["dropped"], [Outcome::Delivered { attempts: 1 }]);
}

#[tokio::test]
async fn callbacks_that_panic_change_no_outcome() {
    let receiver = receiver(Reply::ok()).await;
    let (report, mut reported) = mpsc::channel(10);
    let dispatcher = Dispatcher::builder()
        .workers(1)
        .on_attempt(|_, _, _| panic!("this is a test"))
        .on_delivered(move |_, delivered| {
            report.try_send(delivered.message.clone()).unwrap();
            panic!("this is a test");
        })
        .build()
        .unwrap();
    dispatcher.start();
    dispatcher.insert("a", to(&receiver));
    for body in ["1", "2"] {
        dispatcher.notify("a", body).unwrap();
        assert_eq!(reported.recv().await.unwrap().body(), body);
    }
    dispatcher.stop().await;
}

#[tokio::test]
async fn a_callback_may_queue_the_next_message_into_the_place_of_the_last() {
    let receiver = receiver(Reply::ok()).await;
    let slot: Arc<std::sync::OnceLock<Dispatcher>> = Arc::default();
    let (report, mut reported) = mpsc::channel(10);
    let inside = Arc::clone(&slot);
    let builder = Dispatcher::builder()
        .lane(at_once(2).with_queue_size(1))
        .on_delivered(move |id, delivered| {
            if delivered.message.body() == "first" {
                report
                    .try_send(inside.get().unwrap().notify(id, "second").is_ok())
                    .unwrap();
            }
        });
    let (dispatcher, _errors) = started(builder);
    slot.set(dispatcher.clone()).unwrap();
    dispatcher.insert("a", to(&receiver));
    dispatcher.notify("a", "first").unwrap();
    assert!(reported.recv().await.unwrap());
    dispatcher.stop().await;
    assert_eq!(receiver.requests().len(), 2);
}

#[tokio::test]
async fn attempts_count_on_from_the_first_that_is_handed_in() {
    let receiver = receiver(Reply::new(StatusCode::SERVICE_UNAVAILABLE)).await;
    let (dispatcher, reports) = reporting(Dispatcher::builder().lane(at_once(5)));
    dispatcher.insert("a", to(&receiver));
    let message = |number| {
        let number = NonZeroU32::new(number).unwrap();
        Message::from("x").with_first_attempt(number)
    };
    assert_eq!(Message::from("x").first_attempt(), NonZeroU32::MIN);
    let first = message(4).with_id("fourth").unwrap();
    assert_eq!(first.first_attempt().get(), 4);
    dispatcher.notify("a", first).unwrap();
    let last = message(u32::MAX).with_id("last").unwrap();
    dispatcher.notify("a", last).unwrap();
    dispatcher.stop().await;
    let reports = reports.lock().unwrap();
    // The policy makes five attempts in all, of which three were made before.
    assert_eq!(reports.attempts["fourth"], [4, 5]);
    assert_eq!(reports.attempts["last"], [u32::MAX]);
}

#[tokio::test]
async fn an_open_circuit_says_that_nothing_was_tried_and_until_when() {
    let server = Server::start().await;
    let breaker = CircuitBreakerConfig::default()
        .with_consecutive_failures(1)
        .with_open_for(HOUR / 10);
    let lane = once().with_circuit_breaker(breaker);
    let (dispatcher, _errors) = started(Dispatcher::builder().lane(lane));
    dispatcher.insert("a", server.endpoint("/status/500"));
    assert_eq!(status(&dispatcher, "a").blocked_until, None);

    let began = Instant::now();
    let tripping = dispatcher.deliver("a", "trips").await.unwrap_err();
    let until = tripping.blocked_until().unwrap();
    assert!(tripping.was_attempted());
    assert!(until >= began + HOUR / 10 && until <= Instant::now() + HOUR / 10);
    let refused = dispatcher.deliver("a", "x").await.unwrap_err();
    assert!(matches!(refused.cause(), DeliveryErrorCause::CircuitOpen));
    assert!(!refused.was_attempted() && refused.is_retryable());
    assert_eq!(refused.blocked_until(), Some(until));
    assert_eq!(status(&dispatcher, "a").blocked_until, Some(until));

    // By hand it is open without an end.
    dispatcher.open_circuit("a");
    let refused = dispatcher.deliver("a", "x").await.unwrap_err();
    assert_eq!(refused.blocked_until(), None);
    let status = status(&dispatcher, "a");
    assert_eq!(status.circuit, Some(CircuitState::Open));
    assert_eq!(status.blocked_until, None);
}

#[tokio::test]
async fn without_retry_a_pause_fails_messages_at_once_and_says_until_when() {
    for code in [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
    ] {
        let reply = pausing(code, "3600");
        let receiver = receiver(reply).await;
        let (dispatcher, _errors) = started(Dispatcher::builder().lane(once()));
        dispatcher.insert("a", to(&receiver));
        let began = Instant::now();
        let asked = dispatcher.deliver("a", "x").await.unwrap_err();
        assert_eq!(asked.status(), Some(code));
        let until = asked.blocked_until().unwrap();
        assert!(until >= began + HOUR && until <= Instant::now() + HOUR + HOUR / 10);
        let refused = dispatcher.deliver("a", "x").await.unwrap_err();
        assert!(matches!(refused.cause(), DeliveryErrorCause::RetryAfter));
        assert!(!refused.was_attempted() && refused.is_retryable());
        assert_eq!(refused.blocked_until(), Some(until));
        assert_eq!(status(&dispatcher, "a").blocked_until, Some(until));
        assert_eq!(receiver.requests().len(), 1);

        // It was another endpoint that asked.
        dispatcher.insert("a", to(&receiver));
        assert_eq!(status(&dispatcher, "a").blocked_until, None);
        dispatcher.deliver("a", "x").await.unwrap_err();
        assert_eq!(receiver.requests().len(), 2);
    }
}

#[tokio::test]
async fn with_retry_the_whole_lane_waits_until_the_pause_is_over() {
    let busy = pausing(StatusCode::SERVICE_UNAVAILABLE, "1");
    let receiver = receiver(Script::sequence([busy], Reply::ok())).await;
    let lane = at_once(2).with_in_flight(4, 4);
    let (dispatcher, _errors) = started(Dispatcher::builder().lane(lane));
    dispatcher.insert("a", to(&receiver));
    dispatcher.notify("a", "asked to wait").unwrap();
    receiver.request(1).await;
    while status(&dispatcher, "a").blocked_until.is_none() {
        yield_now().await;
    }
    let asked_at = Instant::now();
    // Another message does not go out in the meantime.
    let delivered = dispatcher.deliver("a", "new").await.unwrap();
    assert_eq!(delivered.attempts.len(), 1);
    assert!(asked_at.elapsed() >= Duration::from_millis(900));
    dispatcher.stop().await;
    assert_eq!(receiver.requests().len(), 3);
}

#[tokio::test]
async fn a_hint_on_another_status_pauses_nothing() {
    let reply = pausing(StatusCode::INTERNAL_SERVER_ERROR, "3600");
    let receiver = receiver(reply).await;
    let (dispatcher, _errors) = started(Dispatcher::builder().lane(once()));
    dispatcher.insert("a", to(&receiver));
    dispatcher.deliver("a", "x").await.unwrap_err();
    assert_eq!(status(&dispatcher, "a").blocked_until, None);
    dispatcher.deliver("a", "x").await.unwrap_err();
    assert_eq!(receiver.requests().len(), 2);
}

#[tokio::test]
async fn an_attempt_that_a_stop_interrupts_counts_as_made() {
    let receiver = support::silent().await;
    let (dispatcher, mut errors) = started(Dispatcher::builder().lane(once()));
    dispatcher.insert("a", to(&receiver));
    dispatcher.notify("a", "under way").unwrap();
    receiver.request(1).await;
    dispatcher.notify("a", "queued").unwrap();
    dispatcher.stop_within(Duration::ZERO).await;
    for _ in 0..2 {
        let (_, error) = errors.recv().await.unwrap();
        assert!(error.attempts().is_empty());
        let was_under_way = error.message().body() == "under way";
        assert_eq!(error.was_attempted(), was_under_way);
    }
}
