//! The circuit of an endpoint, which is one for all instances.

use std::time::Duration;

use jiff::Timestamp;
use tidings::LaneConfig;
use tidings::circuit_breaker::CircuitBreakerConfig;
use tidings_test_support::{Reply, Schema};
use tidings_webhooks::store::{AfterAttempt, LeaseRequest, LeasedLane, Outcome};
use tidings_webhooks::{Delivery, DeliveryQuery, DeliveryState, EndpointSettings, Options};

use crate::support::{App, Place, receiver_of, schedule, soon, start_on_postgres};

/// A lane that is blocked for so long is given back.
const OPEN_FOR: Duration = Duration::from_secs(6);

/// How many failures trip the circuit.
const FAILURES: u32 = 3;

/// One attempt at a time, so that each is counted before the next one.
fn options() -> Options {
    let breaker = CircuitBreakerConfig::default()
        .with_consecutive_failures(FAILURES)
        .with_open_for(OPEN_FOR);
    let lane = LaneConfig::default()
        .with_in_flight(1, 1)
        .with_circuit_breaker(breaker);
    schedule(&[1; 100])
        .with_lane(lane)
        .with_lease(Duration::from_secs(3600))
}

/// Asks for lanes that are due at a time, as another instance does.
fn ask(now: Timestamp) -> LeaseRequest {
    LeaseRequest {
        instance: "observer".to_owned(),
        now,
        until: now.checked_add(Duration::from_secs(3600)).unwrap(),
        limit: 10,
    }
}

/// Waits until the only lane is given back blocked until some seconds after a time, and returns until when.
async fn until_blocked(app: &App, after: Timestamp) -> Timestamp {
    // What is due at once is not blocked.
    let earliest = after.checked_add(OPEN_FOR / 2).unwrap();
    soon(async {
        loop {
            // Nothing is due then, so that no lane is taken.
            let leased = app.store.lease_lanes(ask(Timestamp::UNIX_EPOCH));
            // A lease lasts for longer than a block.
            let latest = Timestamp::now().checked_add(Duration::from_secs(600));
            let is_block = |due: &Timestamp| *due > earliest && *due < latest.unwrap();
            if let Some(due) = leased.await.unwrap().next_due.filter(is_block) {
                return due;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// The one that has opened the circuit stops meanwhile, as in a restart.
async fn the_next_instance_sends_one_probe(one: App, start: impl AsyncFnOnce() -> App) {
    let receiver = receiver_of(Reply::new(http::StatusCode::BAD_GATEWAY)).await;
    let endpoint = one.endpoint(receiver.url("/")).await;
    one.accept(0..20).await;
    let first = until_blocked(&one, Timestamp::now()).await;
    assert_eq!(receiver.requests().len(), FAILURES as usize);
    let other = start().await;
    one.stop().await;

    let second = until_blocked(&other, first).await;
    assert_eq!(receiver.requests().len(), FAILURES as usize + 1);
    let opened = Duration::try_from(second.duration_since(first)).unwrap();
    // The clocks of two instances differ by the time that it takes to read one.
    assert!(
        opened + Duration::from_millis(500) > 2 * OPEN_FOR,
        "{opened:?}"
    );
    // And the one after that opens it for twice as long again.
    let leased = other.store.lease_lanes(ask(second)).await.unwrap();
    let next_open_for = Some(4 * OPEN_FOR);
    let expected = LeasedLane {
        endpoint,
        next_open_for,
    };
    assert_eq!(leased.lanes, [expected]);
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_the_instance_that_takes_over_an_open_circuit_sends_one_probe() {
    let place = Place::new();
    let one = place.start(options()).await;
    the_next_instance_sends_one_probe(one, async || place.start(options()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_the_instance_that_takes_over_an_open_circuit_on_postgres_sends_one_probe() {
    let schema = Schema::create().await;
    let start = async || start_on_postgres(&schema, options()).await;
    the_next_instance_sends_one_probe(start().await, start).await;
}

/// Two instances serve the endpoint in turn: one stops, and the one that has opened the circuit first is there again.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_continues_with_what_another_one_has_learned_meanwhile() {
    let receiver = receiver_of(Reply::new(http::StatusCode::BAD_GATEWAY)).await;
    let place = Place::new();
    let app = place.start(options()).await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    app.accept(0..20).await;
    let first = until_blocked(&app, Timestamp::now()).await;
    // As if another instance had probed it, several times.
    let leased = app.store.lease_lanes(ask(first)).await.unwrap();
    assert_eq!(leased.lanes.len(), 1);
    let released = tidings_webhooks::store::Released {
        endpoint,
        blocked_until: Some(first),
        next_open_for: Some(10 * OPEN_FOR),
    };
    let released = app.store.release_lanes("observer", vec![released]);
    released.await.unwrap();
    let second = until_blocked(&app, first).await;
    assert_eq!(receiver.requests().len(), FAILURES as usize + 1);
    let opened = Duration::try_from(second.duration_since(first)).unwrap();
    assert!(opened > 10 * OPEN_FOR, "{opened:?}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_an_endpoint_asked_for_opens_no_circuit() {
    let busy =
        Reply::new(http::StatusCode::TOO_MANY_REQUESTS).with_header("retry-after", "60".to_owned());
    let receiver = receiver_of(busy).await;
    let place = Place::new();
    let app = place.start(options()).await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    app.accept(0..20).await;
    let until = until_blocked(&app, Timestamp::now()).await;
    assert_eq!(receiver.requests().len(), 1);
    let leased = app.store.lease_lanes(ask(until)).await.unwrap();
    let expected = LeasedLane {
        endpoint,
        next_open_for: None,
    };
    assert_eq!(leased.lanes, [expected]);
    app.stop().await;
}

/// The deliveries that wait, the earliest first.
async fn waiting(app: &App) -> Vec<Delivery> {
    let query = DeliveryQuery::newest(100).in_state(DeliveryState::Pending);
    let mut found = app.webhooks.deliveries(&query).await.unwrap();
    found.sort_by_key(|delivery| delivery.next_attempt_at);
    if let Some(first) = found.first() {
        let one = app.webhooks.delivery(first.id).await.unwrap().unwrap();
        // It may have ended since.
        let is_as_before = one.reason.is_some() || first.reason.is_none();
        assert!(
            is_as_before || one.state != DeliveryState::Pending,
            "{first:?}, {one:?}"
        );
    }
    found
}

fn reason(delivery: &Delivery) -> &str {
    delivery.reason.as_deref().unwrap_or_default()
}

/// Nothing is sent before its time is shown as that of the next attempt, with the reason.
#[track_caller]
fn assert_wait_until(until: Timestamp, says: &str, waiting: &[Delivery]) {
    // Times are shown to the millisecond.
    let earliest = until.checked_sub(Duration::from_millis(20)).unwrap();
    for delivery in waiting {
        assert!(
            delivery.next_attempt_at.unwrap() >= earliest,
            "{until}: {delivery:?}"
        );
        assert!(reason(delivery).contains(says), "{says}: {delivery:?}");
    }
    assert!(!waiting.is_empty());
}

/// Stores of the deliveries that wait that a machine could not send them.
async fn store_local_trouble(app: &App) {
    let query = DeliveryQuery::newest(100).in_state(DeliveryState::Pending);
    let outcome = |delivery: Delivery| {
        let due = delivery.next_attempt_at.unwrap();
        Outcome {
            delivery: delivery.id,
            endpoint: delivery.endpoint_id,
            was_due_at: due,
            attempt: None,
            is_local: true,
            next: AfterAttempt::Retry(due),
            waits_because: Some("no name server".to_owned()),
        }
    };
    let stored = app.store.deliveries(&query).await.unwrap();
    let outcomes = stored.into_iter().map(outcome).collect();
    let now = Timestamp::now();
    app.store.record(outcomes, now, now).await.unwrap();
    for delivery in app.store.deliveries(&query).await.unwrap() {
        assert_eq!(reason(&delivery), "no name server");
    }
}

/// The one that has opened the circuit says so, and so does another one, unless a third serves the endpoint.
async fn a_wait_for_the_circuit_is_shown(one: App, other: App) {
    let receiver = receiver_of(Reply::new(http::StatusCode::BAD_GATEWAY)).await;
    one.endpoint(receiver.url("/")).await;
    one.accept(0..20).await;
    let until = until_blocked(&one, Timestamp::now()).await;
    store_local_trouble(&one).await;
    for app in [&one, &other] {
        assert_wait_until(
            until,
            "the circuit of the endpoint is open",
            &waiting(app).await,
        );
    }
    let leased = one.store.lease_lanes(ask(until)).await.unwrap();
    assert_eq!(leased.lanes.len(), 1);
    for app in [&one, &other] {
        let waiting = waiting(app).await;
        assert_eq!(waiting.len(), 20);
        for delivery in waiting {
            assert_eq!(delivery.next_attempt_at, None, "{delivery:?}");
            let says = "another instance serves the endpoint";
            assert!(reason(&delivery).contains(says), "{delivery:?}");
            let lease = ask(until).until;
            let says = format!("if it has crashed, others take over at {lease:.0}");
            assert!(reason(&delivery).ends_with(&says), "{delivery:?}");
        }
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_a_wait_for_the_circuit_is_shown_on_sqlite() {
    let place = Place::new();
    let one = place.start(options()).await;
    let other = place.start(options()).await;
    a_wait_for_the_circuit_is_shown(one, other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_a_wait_for_the_circuit_is_shown_on_postgres() {
    let schema = Schema::create().await;
    let one = start_on_postgres(&schema, options()).await;
    let other = start_on_postgres(&schema, options()).await;
    a_wait_for_the_circuit_is_shown(one, other).await;
}

/// For seconds, while which the lane stays, and for a time for which it is given back.
#[tokio::test(flavor = "multi_thread")]
async fn regression_a_wait_that_an_endpoint_asked_for_is_shown() {
    for seconds in [4, 60] {
        let busy = Reply::new(http::StatusCode::TOO_MANY_REQUESTS)
            .with_header("retry-after", seconds.to_string());
        let receiver = receiver_of(busy).await;
        let place = Place::new();
        let app = place.start(options()).await;
        app.endpoint(receiver.url("/")).await;
        let before = Timestamp::now();
        app.accept(0..20).await;
        let until = before.checked_add(Duration::from_secs(seconds)).unwrap();
        let said = soon(async {
            loop {
                let mut said = waiting(&app).await;
                // The one that got the reply is due later anyway.
                said.retain(|delivery| delivery.attempts == 0);
                if said.len() == 19 && !said.iter().any(|it| reason(it).is_empty()) {
                    return said;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert_wait_until(until, "Retry-After", &said);
        assert_eq!(receiver.requests().len(), 1);
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_waits_for_its_turn_says_so() {
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let app = place.start(options()).await;
    let mut slow = EndpointSettings::new(receiver.url("/"));
    slow.rate_limit = std::num::NonZeroU32::new(1);
    app.create(slow).await;
    app.accept(0..50).await;
    soon(async {
        let is_late = |it: &Delivery| {
            let due = it.next_attempt_at;
            due.is_some_and(|due| due < Timestamp::now()) && reason(it).contains("rate_limit")
        };
        let mut said = waiting(&app).await;
        while said.is_empty() || !said.iter().all(is_late) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            said = waiting(&app).await;
        }
    })
    .await;
    app.stop().await;
}
