//! Lanes: order, isolation, cost, and several instances.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use tidings_test_support::{Behaviour, Gate, Reply, Schema, Script};
use tidings_webhooks::store::Addressed;
use tidings_webhooks::{DeliveryState, EndpointId, EndpointSettings, NewEndpoint, Owner, Store};
use tokio::time::Instant;

use crate::support::{
    App, Place, event, numbers, receiver_of, schedule, soon, start, start_on_postgres, user,
};
use crate::watched::{Counts, Watched};

/// Deliveries in the store, without the fan-out.
pub(crate) async fn add(store: &dyn Store, endpoint: EndpointId, numbers: std::ops::Range<usize>) {
    let now = jiff::Timestamp::now();
    let all: Vec<usize> = numbers.collect();
    for chunk in all.chunks(1000) {
        let addressed = chunk.iter().map(|number| Addressed {
            event: event(*number),
            to: vec![(endpoint, now)],
        });
        store
            .add_deliveries(addressed.collect(), now)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_arrives_in_order() {
    const BURST: usize = 4000;
    let reply = Reply::ok().with_delay(Duration::from_millis(20));
    let receiver = receiver_of(reply).await;
    let place = Place::new();
    let app = place.start(schedule(&[0])).await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    app.accept(0..BURST).await;
    app.until(endpoint, DeliveryState::Delivered, BURST).await;
    let arrived = numbers(&receiver);
    // The receiver keeps the last requests only.
    let first = BURST - arrived.len();
    let displaced = |(place, number): (usize, &usize)| (first + place).abs_diff(*number);
    let sum: usize = arrived.iter().enumerate().map(displaced).sum();
    let mean = sum / arrived.len();
    assert!(mean < 50, "by {mean} places on the average");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_backlog_costs_one_page() {
    const BACKLOG: usize = 100_000;
    let stalled = receiver_of(Behaviour::NeverReply).await;
    let healthy = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let counts = Arc::<Counts>::default();
    let options = || schedule(&[0, 3_600_000]).with_timeout(Duration::from_secs(600));
    let app = place.start(options()).await;
    let bad = app.endpoint(stalled.url("/")).await;
    let good = app.endpoint(healthy.url("/")).await;
    app.webhooks.disable_endpoint(bad, "not yet").await.unwrap();
    add(&*app.store, bad, 0..BACKLOG).await;
    app.stop().await;
    // It is not cancelled: it is as if it had come while the instance was away.
    let file = place.file();
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection
        .execute_batch(
            "UPDATE webhook_endpoint SET disabled_because = NULL;
             UPDATE webhook_delivery SET state = 0, due_at = created_at, finished_at = NULL;
             INSERT OR IGNORE INTO webhook_lane (endpoint, next_due, free_at)
                 SELECT DISTINCT endpoint, 0, 0 FROM webhook_delivery;",
        )
        .unwrap();
    drop(connection);

    let app = start(&file, options(), |store| Watched::wrap(store, &counts)).await;
    soon(stalled.request(1)).await;
    for number in 0..20 {
        let of_good = Addressed {
            event: event(BACKLOG + number),
            to: vec![(good, jiff::Timestamp::now())],
        };
        app.store
            .add_deliveries(vec![of_good].into(), jiff::Timestamp::now())
            .await
            .unwrap();
        app.until(good, DeliveryState::Delivered, number + 1).await;
    }
    let due = counts.due.load(Ordering::Relaxed);
    let looks = counts.looks.load(Ordering::Relaxed);
    let writes = counts.writes.load(Ordering::Relaxed);
    assert!(due <= 20 + 100, "{due} deliveries were read");
    assert!(looks <= 20 * 10 + 20, "{looks} looks at lanes");
    assert!(writes <= 20 * 5 + 20, "{writes} writes");
    let report = app.webhooks.stop_within(Duration::ZERO).await;
    assert_eq!(report.abandoned_attempts, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_what_is_due_later_is_looked_for_at_the_poll_interval() {
    let failing = receiver_of(Reply::new(StatusCode::INTERNAL_SERVER_ERROR)).await;
    let place = Place::new();
    let counts = Arc::<Counts>::default();
    let options = schedule(&[0, 3_600_000]);
    let app = start(&place.file(), options, |store| {
        Watched::wrap(store, &counts)
    })
    .await;
    app.endpoint(failing.url("/")).await;
    app.accept(0..1).await;
    soon(failing.request(1)).await;
    let before = counts.leases.load(Ordering::Relaxed);
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let looks = counts.leases.load(Ordering::Relaxed) - before;
    // Intervals are shortened by a quarter at most. The lane itself is given back once meanwhile.
    let intervals = began.elapsed().as_millis() / 75;
    let is_quiet = u128::from(looks) <= intervals + 10;
    assert!(is_quiet, "{looks} looks in {intervals} intervals");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_endpoints_harm_only_themselves() {
    let stalled = receiver_of(Behaviour::NeverReply).await;
    let healthy = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let options = schedule(&[0, 3_600_000]).with_workers(8);
    let app = place
        .start(options.with_timeout(Duration::from_secs(600)))
        .await;
    for number in 0..9 {
        app.endpoint(stalled.url(&format!("/{number}"))).await;
    }
    app.accept(0..20).await;
    soon(stalled.request(9)).await;
    let good = app.endpoint(healthy.url("/")).await;
    for number in 20..50 {
        app.accept(number..number + 1).await;
        soon(healthy.request(u64::try_from(number - 19).unwrap())).await;
    }
    app.until(good, DeliveryState::Delivered, 30).await;
    assert_eq!(numbers(&healthy), (20..50).collect::<Vec<_>>());
    app.webhooks.stop_within(Duration::ZERO).await;
}

/// One attempt at a time: two that overlap would be those of two instances.
fn one_at_a_time() -> tidings_webhooks::Options {
    schedule(&[0]).with_lane(tidings::LaneConfig::default().with_in_flight(1, 1))
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_share_the_lanes_and_one_at_a_time_serves_each() {
    let place = Place::new();
    let one = place.start(one_at_a_time()).await;
    let other = place.start(one_at_a_time()).await;
    share_the_lanes(one, other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_on_postgres_share_the_lanes_and_one_at_a_time_serves_each() {
    let schema = Schema::create().await;
    let one = start_on_postgres(&schema, one_at_a_time()).await;
    let other = start_on_postgres(&schema, one_at_a_time()).await;
    share_the_lanes(one, other).await;
}

async fn share_the_lanes(one: App, other: App) {
    const EVENTS: usize = 60;
    let delay = Duration::from_millis(5);
    let receiver = receiver_of(Reply::ok().with_delay(delay)).await;
    let mut endpoints = Vec::new();
    for number in 0..6 {
        endpoints.push(one.endpoint(receiver.url(&format!("/{number}"))).await);
    }
    for number in 0..EVENTS {
        let app = if number % 2 == 0 { &one } else { &other };
        app.accept(number..number + 1).await;
    }
    for endpoint in &endpoints {
        let delivered = one.until(*endpoint, DeliveryState::Delivered, EVENTS).await;
        assert!(delivered.iter().all(|delivery| delivery.attempts == 1));
    }
    let mut by_lane: BTreeMap<String, Vec<(usize, Instant)>> = BTreeMap::new();
    for request in receiver.requests() {
        let id = request.header("webhook-id").unwrap();
        let number = id.strip_prefix("event-").unwrap().parse().unwrap();
        let lane = by_lane.entry(request.head.path().to_owned()).or_default();
        lane.push((number, request.received_at));
    }
    assert_eq!(by_lane.len(), 6);
    for arrived in by_lane.values() {
        let mut numbers: Vec<_> = arrived.iter().map(|(number, _)| *number).collect();
        for pair in arrived.windows(2) {
            assert!(
                pair[1].1 - pair[0].1 >= delay,
                "two attempts overlap: {pair:?}"
            );
        }
        // What two instances accept at the same moment may change places.
        let displaced = |(place, number): (usize, &usize)| place.abs_diff(*number);
        let sum: usize = numbers.iter().enumerate().map(displaced).sum();
        assert!(sum / EVENTS < 5, "{numbers:?}");
        numbers.sort_unstable();
        assert_eq!(numbers, (0..EVENTS).collect::<Vec<_>>());
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_gives_the_lanes_back_at_once() {
    let gate = tidings_test_support::Gate::new();
    let script = Script::sequence([Reply::ok().after(gate.clone())], Reply::ok());
    let receiver = receiver_of(script).await;
    let place = Place::new();
    let long = || schedule(&[0]).with_lease(Duration::from_secs(3600));
    let lane = tidings::LaneConfig::default().with_in_flight(1, 1);
    let one = place.start(long().with_lane(lane)).await;
    let endpoint = one.endpoint(receiver.url("/")).await;
    add(&*one.store, endpoint, 0..10).await;
    soon(receiver.request(1)).await;
    let other = place.start(long()).await;
    // The one that has the lane finishes its attempt, and the other takes over.
    let opening = gate.clone();
    let stopping = one.webhooks.stop_within(Duration::from_secs(60));
    let (report, ()) = tokio::join!(stopping, async {
        tokio::task::yield_now().await;
        opening.open();
    });
    assert_eq!(
        (report.abandoned_attempts, report.unwritten_outcomes),
        (0, 0)
    );
    other.until(endpoint, DeliveryState::Delivered, 10).await;
    let mut arrived = numbers(&receiver);
    arrived.sort_unstable();
    assert_eq!(arrived, (0..10).collect::<Vec<_>>());
    other.stop().await;
}

/// Refuses with a wait, and then replies.
fn asks_for(wait: &str) -> Script {
    let refusal =
        Reply::new(StatusCode::TOO_MANY_REQUESTS).with_header("retry-after", wait.to_owned());
    Script::sequence([refusal], Reply::ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_asked_for_a_long_wait_gets_requests_again_once_it_is_changed_or_retried()
{
    let place = Place::new();
    let app = place.start(schedule(&[0, 50])).await;
    for is_retried in [false, true] {
        let receiver = receiver_of(asks_for("86400")).await;
        let endpoint = app.endpoint(receiver.url("/")).await;
        add(&*app.store, endpoint, 0..1).await;
        soon(receiver.request(1)).await;
        let pending = app.until(endpoint, DeliveryState::Pending, 1).await;
        soon(async {
            while app.attempts(pending[0].id).await.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        // The lane is given back, blocked for a day. A retry is for the first one, too, and a change for what comes.
        add(&*app.store, endpoint, 1..2).await;
        if is_retried {
            app.webhooks.retry(pending[0].id).await.unwrap();
        } else {
            let moved = receiver.url("/moved");
            let change = app.webhooks.update_endpoint(endpoint, move |settings| {
                settings.url.clone_from(&moved);
            });
            change.await.unwrap();
        }
        let delivered = if is_retried { 2 } else { 1 };
        app.until(endpoint, DeliveryState::Delivered, delivered)
            .await;
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_through_another_instance_ends_the_wait_that_this_one_remembers() {
    let receiver = receiver_of(asks_for("86400")).await;
    let place = Place::new();
    let app = place.start(schedule(&[0, 50])).await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    app.accept(0..1).await;
    soon(receiver.request(1)).await;
    let pending = app.until(endpoint, DeliveryState::Pending, 1).await;
    soon(async {
        while app.attempts(pending[0].id).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // As the other instance does it: this one is not told.
    let retried = app
        .store
        .retry_delivery(pending[0].id, jiff::Timestamp::now());
    assert_eq!(retried.await.unwrap(), Some(endpoint));
    app.until(endpoint, DeliveryState::Delivered, 1).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_an_endpoint_asked_for_outlives_a_stop_of_the_instance() {
    let receiver = receiver_of(asks_for("86400")).await;
    let place = Place::new();
    let app = place.start(schedule(&[0, 50])).await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    app.accept(0..1).await;
    let pending = app.until(endpoint, DeliveryState::Pending, 1).await;
    soon(async {
        while app.attempts(pending[0].id).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    app.stop().await;

    let app = place.start(schedule(&[0, 50])).await;
    let healthy = receiver_of(Reply::ok()).await;
    let other = app.endpoint(healthy.url("/")).await;
    app.accept(1..10).await;
    app.until(other, DeliveryState::Delivered, 9).await;
    assert_eq!(
        app.until(endpoint, DeliveryState::Pending, 10).await.len(),
        10
    );
    assert_eq!(receiver.requests().len(), 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_circuit_costs_no_attempts_and_closes_again() {
    let refusal = Reply::new(http::StatusCode::BAD_GATEWAY);
    let receiver = receiver_of(refusal).await;
    let place = Place::new();
    let breaker = tidings::circuit_breaker::CircuitBreakerConfig::default();
    let lane = tidings::LaneConfig::default().with_circuit_breaker(breaker);
    let app = place
        .start(schedule(&[0, 50, 50, 50, 50, 50]).with_lane(lane))
        .await;
    let settings = EndpointSettings::new(receiver.url("/"));
    let (endpoint, _) = app.create(settings).await;
    app.accept(0..50).await;
    soon(async {
        while app
            .webhooks
            .health(endpoint.id)
            .await
            .unwrap()
            .unwrap()
            .circuit
            != Some("open")
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    receiver.switch_to(Reply::ok());
    let delivered = app.until(endpoint.id, DeliveryState::Delivered, 50).await;
    assert_eq!(delivered.len(), 50);
    app.stop().await;
}

/// Attempts to the same host are limited, and so are those that are under way in all.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_endpoints_of_one_user_that_all_stall_hold_up_no_other_user_at_their_host() {
    const ENDPOINTS: usize = 100;
    let bad = receiver_of(Reply::ok()).await;
    let good = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let options = schedule(&[0]).with_timeout(Duration::from_secs(600));
    let app = place.start(options).await;
    let mut of_mallory = Vec::new();
    for number in 0..ENDPOINTS {
        let url = bad.url(&format!("/{number}"));
        of_mallory.push(endpoint_of(&app, "mallory", url).await);
    }
    let of_bob = endpoint_of(&app, "bob", good.url("/")).await;
    let accept = async |number: usize, name: &str| {
        let event = event(number).with_user(user(name));
        app.webhooks.accept(vec![event]).await.unwrap();
    };
    // All of them reply, so that they are quick, and then no more.
    accept(0, "mallory").await;
    for endpoint in &of_mallory {
        app.until(*endpoint, DeliveryState::Delivered, 1).await;
    }
    bad.switch_to(Script::always(Behaviour::NeverReply));
    accept(1, "mallory").await;
    bad.request(ENDPOINTS as u64 + 16).await;
    for number in 0..5 {
        accept(2 + number, "bob").await;
        app.until(of_bob, DeliveryState::Delivered, number + 1)
            .await;
    }
    let stalled = bad.requests().len() - ENDPOINTS;
    assert!(stalled <= 16, "{stalled} of mallory's are under way");
    app.stop().await;
}

async fn endpoint_of(app: &App, owner: &str, url: String) -> EndpointId {
    let new = NewEndpoint::new(Owner::User(user(owner)), EndpointSettings::new(url));
    app.webhooks.create_endpoint(new).await.unwrap().0.id
}

#[tokio::test]
async fn regression_an_endpoint_that_asks_for_a_wait_after_minutes_gets_it() {
    let gate = Gate::new();
    let busy = Reply::new(StatusCode::TOO_MANY_REQUESTS).with_header("retry-after", "3600");
    let receiver = receiver_of(busy.after(gate.clone())).await;
    let place = Place::new();
    let counts = Arc::<Counts>::default();
    let hour = Duration::from_secs(3600);
    let options = schedule(&[0; 5]).with_timeout(hour).with_lease(hour);
    let app = start(&place.file(), options, |store| {
        Watched::wrap(store, &counts)
    })
    .await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    app.accept(0..2).await;
    soon(receiver.request(1)).await;

    // The endpoint is read again while the request is under way.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(100)).await;
    tokio::time::resume();
    let looks = || counts.looks.load(Ordering::Relaxed);
    let before = looks();
    soon(async {
        while looks() < before + 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    gate.open();
    soon(async {
        loop {
            let pending = app.until(endpoint, DeliveryState::Pending, 2).await;
            if pending.iter().any(|delivery| delivery.attempts > 0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    app.stop().await;
    assert_eq!(receiver.requests().len(), 1);
}
