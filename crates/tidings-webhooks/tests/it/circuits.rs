//! The circuit of an endpoint, which is one for all instances.

use std::time::Duration;

use jiff::Timestamp;
use tidings::LaneConfig;
use tidings::circuit_breaker::CircuitBreakerConfig;
use tidings_test_support::{Reply, Schema};
use tidings_webhooks::Options;
use tidings_webhooks::store::{LeaseRequest, LeasedLane};

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
