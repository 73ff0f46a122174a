//! Deliveries that the fan-out hands to lanes, and lanes that rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use tidings::LaneConfig;
use tidings_test_support::{Gate, Receiver, Reply, Schema, Script};
use tidings_webhooks::store::Addressed;
use tidings_webhooks::{DeliveryState, EndpointId, EndpointSettings, Options};
use tokio::time::Instant;

use crate::support::{
    App, Place, event, numbers, receiver_of, schedule, soon, start, start_on_postgres,
};
use crate::watched::{Counts, Holds, Watched};

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_delivery_needs_no_look_at_the_store() {
    const EVENTS: usize = 100;
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let counts = Arc::<Counts>::default();
    let app = start(&place.file(), schedule(&[0]), |store| {
        Watched::wrap(store, &counts)
    })
    .await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    app.accept(0..1).await;
    app.until(endpoint, DeliveryState::Delivered, 1).await;
    let began = Instant::now();
    let before = counts.looks.load(Ordering::Relaxed);
    for number in 1..EVENTS {
        app.accept(number..number + 1).await;
        soon(receiver.request(number as u64 + 1)).await;
    }
    let looks = counts.looks.load(Ordering::Relaxed) - before;
    // By their age, not by what arrives: idle lanes are looked at together, several times a second.
    let aged = began.elapsed().as_millis() / 100;
    assert!(u128::from(looks) <= aged + 10, "{looks} looks");
    let delivered = app.until(endpoint, DeliveryState::Delivered, EVENTS).await;
    assert!(delivered.iter().all(|delivery| delivery.attempts == 1));
    assert_eq!(numbers(&receiver), (0..EVENTS).collect::<Vec<_>>());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_arrives_once_and_in_order_while_the_store_is_looked_at() {
    let place = Place::new();
    arrives_once(place.start(one_at_a_time()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_arrives_once_and_in_order_on_postgres_while_the_store_is_looked_at() {
    let schema = Schema::create().await;
    arrives_once(start_on_postgres(&schema, one_at_a_time()).await).await;
}

/// So that the order of arrival is that of sending.
fn one_at_a_time() -> Options {
    schedule(&[0]).with_lane(tidings::LaneConfig::default().with_in_flight(1, 1))
}

async fn arrives_once(app: App) {
    const EVENTS: usize = 500;
    let receiver = receiver_of(Reply::ok()).await;
    let mut settings = EndpointSettings::new(receiver.url("/"));
    // Not those about its changes.
    settings.event_types = vec!["order.*".parse().unwrap()];
    let endpoint = app.create(settings).await.0.id;
    let is_done = AtomicBool::new(false);
    let looks = async {
        // A change has the lane looked at, whatever was handed to it.
        for number in 0.. {
            if is_done.load(Ordering::Relaxed) {
                return;
            }
            let change = |settings: &mut EndpointSettings| {
                settings
                    .headers
                    .insert("x-number".into(), number.to_string());
            };
            let changed = app.webhooks.update_endpoint(endpoint, change).await;
            changed.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let events = async {
        for number in 0..EVENTS {
            app.accept(number..number + 1).await;
        }
        app.until(endpoint, DeliveryState::Delivered, EVENTS).await;
        is_done.store(true, Ordering::Relaxed);
    };
    tokio::join!(looks, events);
    assert_eq!(numbers(&receiver), (0..EVENTS).collect::<Vec<_>>());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_rests_sees_what_another_instance_changes() {
    let (old, new) = (
        receiver_of(Reply::ok()).await,
        receiver_of(Reply::ok()).await,
    );
    let place = Place::new();
    let options = || schedule(&[0]).with_lease(Duration::from_secs(3600));
    let one = place.start(options()).await;
    let endpoint = one.endpoint(old.url("/")).await;
    one.accept(0..1).await;
    soon(old.request(1)).await;
    let other = place.start(options()).await;
    let change = |settings: &mut EndpointSettings| settings.url = new.url("/");
    let changed = other.webhooks.update_endpoint(endpoint, change).await;
    changed.unwrap();
    let mut accepted = 1;
    while new.requests().is_empty() {
        assert!(accepted < 100, "it still sends to the old address");
        one.accept(accepted..accepted + 1).await;
        accepted += 1;
        one.until(endpoint, DeliveryState::Delivered, accepted)
            .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A delivery that the other instance begins again.
    let delivery = one
        .until(endpoint, DeliveryState::Delivered, accepted)
        .await[0]
        .id;
    let requests = new.requests().len() as u64;
    other.webhooks.retry(delivery).await.unwrap();
    soon(new.request(requests + 1)).await;
    one.stop().await;
    other.stop().await;
}

/// While a request is under way, what another instance makes is sent, and what it changes counts. The lane was handed
/// that request after so many others, with which it has rested.
async fn sees_what_another_instance_does(one: App, other: App, earlier: usize) {
    let (gate, new) = (Gate::new(), receiver_of(Reply::ok()).await);
    let first = (0..earlier).map(|_| Reply::ok());
    let script = Script::sequence(first.chain([Reply::ok().after(gate.clone())]), Reply::ok());
    let old = receiver_of(script).await;
    let endpoint = one.endpoint(old.url("/")).await;
    for number in 0..=earlier {
        one.until(endpoint, DeliveryState::Delivered, number).await;
        one.accept(number..number + 1).await;
        soon(old.request(number as u64 + 1)).await;
    }
    // The instance that has the fan-out cannot hand over what it makes for the lane of another one, nor wake it.
    let now = jiff::Timestamp::now();
    for number in earlier + 1..earlier + 4 {
        let addressed = Addressed {
            event: event(number),
            to: vec![(endpoint, now)],
        };
        let added = other
            .store
            .add_deliveries(vec![addressed].into(), now)
            .await;
        added.unwrap();
        soon(old.request(number as u64 + 1)).await;
    }
    let change = |settings: &mut EndpointSettings| settings.url = new.url("/");
    let changed = other.webhooks.update_endpoint(endpoint, change).await;
    changed.unwrap();
    let ended = earlier + 3;
    let delivered = one.until(endpoint, DeliveryState::Delivered, ended).await;
    let again = other.webhooks.retry(delivered[0].id).await;
    again.unwrap();
    soon(new.request(1)).await;
    gate.open();
    one.until(endpoint, DeliveryState::Delivered, ended + 1)
        .await;
    one.stop().await;
    other.stop().await;
}

fn of_a_busy_lane() -> Options {
    schedule(&[0])
        .with_lease(Duration::from_secs(3600))
        .with_timeout(Duration::from_secs(600))
        .with_lane(LaneConfig::default().with_in_flight(4, 4))
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_a_busy_lane_sees_what_another_instance_does() {
    let place = Place::new();
    let one = place.start(of_a_busy_lane()).await;
    let other = place.start(of_a_busy_lane()).await;
    sees_what_another_instance_does(one, other, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_a_busy_lane_on_postgres_sees_what_another_instance_does() {
    let schema = Schema::create().await;
    let one = start_on_postgres(&schema, of_a_busy_lane()).await;
    let other = start_on_postgres(&schema, of_a_busy_lane()).await;
    sees_what_another_instance_does(one, other, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_rests_while_a_request_is_under_way_sees_what_another_instance_does() {
    let place = Place::new();
    let one = place.start(of_a_busy_lane()).await;
    let other = place.start(of_a_busy_lane()).await;
    sees_what_another_instance_does(one, other, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_rests_on_postgres_while_a_request_is_under_way_sees_what_another_instance_does()
 {
    let schema = Schema::create().await;
    let one = start_on_postgres(&schema, of_a_busy_lane()).await;
    let other = start_on_postgres(&schema, of_a_busy_lane()).await;
    sees_what_another_instance_does(one, other, 1).await;
}

/// So that only the fan-out and outcomes can wake a lane that rests.
fn without_looks() -> Holds {
    Holds {
        next_due: Some(Gate::new()),
        ..Holds::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_in_a_lane_that_rests_is_tried_again() {
    let failing = Reply::new(StatusCode::INTERNAL_SERVER_ERROR);
    let script = Script::sequence([Reply::ok(), failing], Reply::ok());
    let receiver = receiver_of(script).await;
    let place = Place::new();
    let options = schedule(&[0, 100]).with_poll_interval(Duration::from_secs(3600));
    let app = start(&place.file(), options, |store| {
        Watched::hold(store, &without_looks())
    })
    .await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    app.accept(0..1).await;
    app.until(endpoint, DeliveryState::Delivered, 1).await;
    app.accept(1..2).await;
    let delivered = app.until(endpoint, DeliveryState::Delivered, 2).await;
    assert_eq!(delivered[1].attempts, 2);
    app.stop().await;
}

/// An instance that has room for one lane, and the second request of that lane under way.
async fn full_with_a_request_under_way(
    place: &Place,
    busy: &Receiver,
) -> (App, Arc<Counts>, EndpointId) {
    let counts = Arc::<Counts>::default();
    let options = schedule(&[0])
        .with_max_lanes(1)
        .with_poll_interval(Duration::from_secs(3600));
    let app = start(&place.file(), options, |store| {
        Watched::count_and_hold(store, &counts, &without_looks())
    })
    .await;
    let endpoint = app.endpoint(busy.url("/")).await;
    app.accept(0..1).await;
    app.until(endpoint, DeliveryState::Delivered, 1).await;
    app.accept(1..2).await;
    soon(busy.request(2)).await;
    (app, counts, endpoint)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_full_gives_a_lane_back_when_its_request_has_ended() {
    let (place, gate) = (Place::new(), Gate::new());
    let script = Script::sequence([Reply::ok(), Reply::ok().after(gate.clone())], Reply::ok());
    let (busy, other) = (receiver_of(script).await, receiver_of(Reply::ok()).await);
    let (app, counts, endpoint) = full_with_a_request_under_way(&place, &busy).await;
    app.endpoint(other.url("/")).await;
    let looks = counts.leases.load(Ordering::Relaxed);
    app.accept(2..3).await;
    app.until(endpoint, DeliveryState::Delivered, 2).await;
    reaches(&counts.leases, looks + 1).await;
    assert!(other.requests().is_empty());
    gate.open();
    soon(other.request(1)).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_instance_does_not_look_for_room_at_each_delivery_of_a_busy_lane() {
    let (place, gate) = (Place::new(), Gate::new());
    let script = Script::sequence([Reply::ok(), Reply::ok().after(gate.clone())], Reply::ok());
    let (busy, other) = (receiver_of(script).await, receiver_of(Reply::ok()).await);
    let (app, counts, endpoint) = full_with_a_request_under_way(&place, &busy).await;
    let mut settings = EndpointSettings::new(other.url("/"));
    settings.event_types = vec!["none.*".parse().unwrap()];
    let (waiting, _) = app.create(settings).await;
    let looks = counts.leases.load(Ordering::Relaxed);
    app.webhooks.send_test(waiting.id).await.unwrap();
    reaches(&counts.leases, looks + 1).await;
    for number in 2..12 {
        app.accept(number..number + 1).await;
        app.until(endpoint, DeliveryState::Delivered, number).await;
    }
    assert_eq!(counts.leases.load(Ordering::Relaxed), looks + 1);
    gate.open();
    soon(other.request(1)).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_the_request_of_a_lane_that_rests() {
    let gate = Gate::new();
    let script = Script::sequence([Reply::ok()], Reply::ok().after(gate.clone()));
    let receiver = receiver_of(script).await;
    let place = Place::new();
    let app = place.start(schedule(&[0])).await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    app.accept(0..1).await;
    app.until(endpoint, DeliveryState::Delivered, 1).await;
    app.accept(1..2).await;
    soon(receiver.request(2)).await;
    let mut stop = std::pin::pin!(app.webhooks.stop_within(Duration::from_secs(60)));
    let early = tokio::time::timeout(Duration::from_millis(200), stop.as_mut()).await;
    early.unwrap_err();
    gate.open();
    let report = stop.await;
    assert_eq!(
        (report.abandoned_attempts, report.unwritten_outcomes),
        (0, 0)
    );
    app.until(endpoint, DeliveryState::Delivered, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_full_gives_idle_lanes_back() {
    const ENDPOINTS: usize = 20;
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let app = place.start(schedule(&[0]).with_max_lanes(1)).await;
    for number in 0..ENDPOINTS {
        app.endpoint(receiver.url(&format!("/{number}"))).await;
    }
    app.accept(0..1).await;
    // With the time that an idle lane rests otherwise it takes longer than the patience of the tests.
    soon(receiver.request(ENDPOINTS as u64)).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_an_instance_that_is_full_keeps_idle_lanes_until_another_needs_room() {
    const LANES: usize = 20;
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let counts = Arc::<Counts>::default();
    let app = start(
        &place.file(),
        schedule(&[0]).with_max_lanes(LANES),
        |store| Watched::wrap(store, &counts),
    )
    .await;
    for number in 0..LANES {
        app.endpoint(receiver.url(&format!("/{number}"))).await;
    }
    let began = Instant::now();
    app.accept(0..1).await;
    soon(receiver.request(LANES as u64)).await;
    reaches(&counts.looks_at_idle, 1).await;
    // Lanes that have rested for five seconds go anyway.
    let released = counts.releases_begun.load(Ordering::Relaxed);
    assert!(released == 0 || began.elapsed() >= Duration::from_secs(5));
    app.stop().await;
}

/// Otherwise what is known of it is soon too old, and its deliveries are read from the store.
#[tokio::test(flavor = "multi_thread")]
async fn regression_a_lane_that_never_rests_for_long_is_looked_at_with_the_others() {
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let counts = Arc::<Counts>::default();
    let app = start(&place.file(), schedule(&[0]), |store| {
        Watched::wrap(store, &counts)
    })
    .await;
    app.endpoint(receiver.url("/")).await;
    let often = async {
        for number in 0.. {
            app.accept(number..number + 1).await;
            soon(receiver.request(number as u64 + 1)).await;
            // It rests between two deliveries.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = often => {}
        () = reaches(&counts.looks_at_idle, 2) => {}
    }
    app.stop().await;
}

/// Waits until a count is so large.
async fn reaches(count: &AtomicU64, least: u64) {
    soon(async {
        while count.load(Ordering::Relaxed) < least {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_a_renewal_does_not_take_a_lane_back_that_is_being_given_back() {
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let counts = Arc::<Counts>::default();
    let gate = Gate::new();
    let holds = Holds {
        release: Some(gate.clone()),
        ..Holds::default()
    };
    // It is renewed every 100 ms.
    let options = schedule(&[0]).with_lease(Duration::from_millis(300));
    let app = start(&place.file(), options, |store| {
        Watched::count_and_hold(store, &counts, &holds)
    })
    .await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    app.accept(0..1).await;
    app.until(endpoint, DeliveryState::Delivered, 1).await;
    reaches(&counts.releases_begun, 1).await;
    // The store still has the lease, and every renewal says so.
    let looks = counts.looks.load(Ordering::Relaxed);
    let renewals = counts.renewals.load(Ordering::Relaxed);
    reaches(&counts.renewals, renewals + 5).await;
    assert_eq!(counts.looks.load(Ordering::Relaxed), looks);
    gate.open();
    app.accept(1..2).await;
    app.until(endpoint, DeliveryState::Delivered, 2).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_a_lane_that_rests_is_woken_for_an_event_that_was_stored_before() {
    let (one, other) = (
        receiver_of(Reply::ok()).await,
        receiver_of(Reply::ok()).await,
    );
    let place = Place::new();
    let holds = Holds {
        // So that only the fan-out can wake it.
        next_due: Some(Gate::new()),
        ..Holds::default()
    };
    let app = start(&place.file(), schedule(&[0]), |store| {
        Watched::hold(store, &holds)
    })
    .await;
    app.endpoint(one.url("/")).await;
    app.accept(0..1).await;
    soon(one.request(1)).await;
    let endpoint = app.endpoint(other.url("/")).await;
    app.accept(1..2).await;
    app.until(endpoint, DeliveryState::Delivered, 1).await;
    app.accept(0..1).await;
    soon(other.request(2)).await;
    assert_eq!(numbers(&other), [1, 0]);
    assert_eq!(numbers(&one), [0, 1]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_work_is_found_that_is_made_while_its_lane_is_given_back() {
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let counts = Arc::<Counts>::default();
    let gate = Gate::new();
    let holds = Holds {
        add: Some(("event-1", gate.clone())),
        ..Holds::default()
    };
    // So that only the fan-out can wake it.
    let options = schedule(&[0]).with_poll_interval(Duration::from_secs(3600));
    let app = start(&place.file(), options, |store| {
        Watched::count_and_hold(store, &counts, &holds)
    })
    .await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    app.accept(0..1).await;
    app.until(endpoint, DeliveryState::Delivered, 1).await;
    // Its lane rests, and takes what is handed to it when the transaction begins, but not when it ends.
    app.accept(1..2).await;
    reaches(&counts.releases, 1).await;
    gate.open();
    // Other tasks find it after half a minute.
    let found = tokio::time::timeout(Duration::from_secs(15), receiver.request(2)).await;
    found.expect("the lane is leased at once");
    app.stop().await;
}
