//! Which deliveries are made of accepted events, and in which order.

use std::collections::HashMap;
use std::time::Duration;

use tidings_stream::{GroupStats, NewMessage};
use tidings_test_support::{Gate, Reply, Schema};
use tidings_webhooks::{
    Delivery, DeliveryQuery, DeliveryState, EndpointId, EndpointSettings, FanOutLag, NewEndpoint,
    Options, Owner, STREAM, StoreError, WebhookEvent,
};

use crate::support::{
    App, Place, event, receiver_of, schedule, soon, start, start_on_postgres, user,
};
use crate::watched::{Failing, FailingStep, Holds, Watched};

/// Nothing is sent: the tests look at what is made.
fn later() -> Options {
    schedule(&[3_600_000])
}

/// Endpoints of the operator.
async fn endpoints(app: &App, count: usize) -> Vec<EndpointId> {
    let mut endpoints = Vec::new();
    for number in 0..count {
        let url = format!("https://example.com/{number}");
        endpoints.push(app.endpoint(url).await);
    }
    endpoints
}

/// One event for each of many users, whose numbers are those of the users.
fn for_users(users: usize) -> Vec<WebhookEvent> {
    let event = |number| event(number).with_user(user(&format!("user-{number}")));
    (0..users).map(event).collect()
}

/// Waits until all deliveries are made, and returns those of an endpoint in the order of their making.
async fn made(app: &App, endpoint: EndpointId, count: usize) -> Vec<Delivery> {
    app.until(endpoint, DeliveryState::Pending, count).await
}

async fn until_pending(app: &App, count: u64) {
    soon(async {
        while app.webhooks.pending().await.unwrap() != count {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// The place of each event among the deliveries of an endpoint.
fn places(deliveries: &[Delivery]) -> HashMap<String, usize> {
    let ids = deliveries.iter().map(|delivery| delivery.event_id.clone());
    ids.zip(0..).collect()
}

/// It counts deliveries, not seconds: those that are made before the one of another user.
async fn a_large_fan_out_lets_others_pass(app: App) {
    const ENDPOINTS: usize = 20;
    const USERS: usize = 1024;
    let endpoints = endpoints(&app, ENDPOINTS).await;
    app.webhooks.accept(for_users(USERS)).await.unwrap();
    let of_zoe = event(USERS).with_user(user("zoe"));
    app.webhooks.accept(vec![of_zoe.clone()]).await.unwrap();

    let mut all = Vec::new();
    for endpoint in endpoints {
        all.extend(made(&app, endpoint, USERS + 1).await);
    }
    assert_eq!(all.len(), ENDPOINTS * (USERS + 1));
    all.sort_by_key(|delivery| delivery.id);
    let place = all.iter().position(|it| it.event_id == of_zoe.id());
    assert!(place.unwrap() < all.len() / 2, "{place:?} of {}", all.len());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_a_large_fan_out_lets_others_pass() {
    let place = Place::new();
    a_large_fan_out_lets_others_pass(place.start(later()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_a_large_fan_out_lets_others_pass_on_postgres() {
    let schema = Schema::create().await;
    a_large_fan_out_lets_others_pass(start_on_postgres(&schema, later()).await).await;
}

#[tokio::test]
async fn a_later_event_of_a_user_stays_behind_a_large_fan_out() {
    let place = Place::new();
    let gate = Gate::new();
    let holds = Holds {
        deferred: Some(gate.clone()),
        ..Holds::default()
    };
    let app = start(&place.file(), later(), |it| Watched::hold(it, &holds)).await;
    let endpoints = endpoints(&app, 5).await;
    app.webhooks.accept(for_users(256)).await.unwrap();
    let of_zoe = event(256).with_user(user("zoe"));
    let of_deferred = event(257).with_user(user("user-17"));
    app.webhooks.accept(vec![of_zoe.clone()]).await.unwrap();
    app.webhooks
        .accept(vec![of_deferred.clone()])
        .await
        .unwrap();

    // Five deliveries for zoe, and 257 events that wait.
    until_pending(&app, 5 + 257).await;
    for endpoint in &endpoints {
        let made = made(&app, *endpoint, 1).await;
        assert_eq!(made[0].event_id, of_zoe.id());
        assert_eq!(made.len(), 1);
    }
    gate.open();
    for endpoint in endpoints {
        let places = places(&made(&app, endpoint, 258).await);
        assert_eq!(places.len(), 258);
        assert!(places[event(17).id()] < places[of_deferred.id()]);
    }
    app.stop().await;
}

#[tokio::test]
async fn a_stop_leaves_deferred_events_to_the_next_run() {
    let place = Place::new();
    let holds = Holds {
        deferred: Some(Gate::new()),
        ..Holds::default()
    };
    let app = start(&place.file(), later(), |it| Watched::hold(it, &holds)).await;
    let endpoints = endpoints(&app, 5).await;
    app.webhooks.accept(for_users(256)).await.unwrap();
    until_pending(&app, 256).await;
    app.stop().await;

    let app = place.start(later()).await;
    let next = event(256).with_user(user("user-0"));
    app.webhooks.accept(vec![next.clone()]).await.unwrap();
    for endpoint in endpoints {
        let places = places(&made(&app, endpoint, 257).await);
        assert_eq!(places.len(), 257);
        assert!(places[event(0).id()] < places[next.id()]);
    }
    app.stop().await;
}

/// An event with more endpoints than one step of deferred events may have.
#[tokio::test]
async fn an_event_that_takes_several_steps_reaches_all_its_endpoints() {
    let place = Place::new();
    let app = place.start(later()).await;
    let owner = || Owner::User(user("anna"));
    let mut endpoints = Vec::new();
    for number in 0..501 {
        let settings = EndpointSettings::new(format!("https://example.com/{number}"));
        let new = NewEndpoint::new(owner(), settings);
        let (endpoint, _) = app.webhooks.create_endpoint(new).await.unwrap();
        endpoints.push(endpoint.id);
    }
    let of_anna = |number| event(number).with_user(user("anna"));
    app.webhooks
        .accept(vec![of_anna(0), of_anna(1)])
        .await
        .unwrap();
    until_pending(&app, 1002).await;
    for endpoint in [endpoints[0], endpoints[499], endpoints[500]] {
        let places = places(&made(&app, endpoint, 2).await);
        assert_eq!((places["event-0"], places["event-1"]), (0, 1));
    }
    app.stop().await;
}

/// What waits for an endpoint waits in its deliveries, not in the stream of accepted events.
#[tokio::test]
async fn regression_a_failing_endpoint_keeps_no_message_of_the_stream_open() {
    let receiver = receiver_of(Reply::new(http::StatusCode::BAD_GATEWAY)).await;
    let place = Place::new();
    let app = place.start(schedule(&[0, 3_600_000])).await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    for number in 0..5 {
        app.accept(number..number + 1).await;
        made(&app, endpoint, number + 1).await;
    }
    soon(async {
        loop {
            let stats = app.streams.stats(STREAM).await.unwrap();
            let waits = |group: &GroupStats| group.pending > 0 || group.lag > 0;
            if !stats.groups.iter().any(waits) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn regression_an_endpoint_does_not_get_what_was_accepted_before_it_was_made() {
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let gate = Gate::new();
    let holds = Holds {
        audience: Some(gate.clone()),
        ..Holds::default()
    };
    let options = schedule(&[0]);
    let app = start(&place.file(), options, |it| Watched::hold(it, &holds)).await;
    let before = app.endpoint(receiver.url("/before")).await;
    let of_anna = |number| event(number).with_user(user("anna"));
    app.webhooks.accept(vec![of_anna(0)]).await.unwrap();
    let after = app.endpoint(receiver.url("/after")).await;
    app.webhooks.accept(vec![of_anna(1)]).await.unwrap();
    gate.open();
    app.until(before, DeliveryState::Delivered, 2).await;
    app.until(after, DeliveryState::Delivered, 1).await;
    let query = DeliveryQuery::newest(10).to(after);
    let of_after = app.webhooks.deliveries(&query).await.unwrap();
    assert_eq!(of_after.len(), 1);
    assert_eq!(of_after[0].event_id, "event-1");
    app.stop().await;
}

/// Three instances, none of which has to be the one that an event was accepted by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_on_postgres_are_made_in_the_order_of_acceptance_whichever_instance_accepts() {
    const EVENTS: usize = 600;
    let schema = Schema::create().await;
    let options = || later().with_lease(Duration::from_secs(2));
    let mut apps = Vec::new();
    for _ in 0..3 {
        apps.push(start_on_postgres(&schema, options()).await);
    }
    let endpoint = apps[0].endpoint("https://example.com/".to_owned()).await;
    let mut number = 0;
    for stopped in 0..3 {
        for _ in 0..EVENTS / 3 {
            apps[number % apps.len()].accept(number..number + 1).await;
            number += 1;
        }
        // The others continue, whether the one that stops makes deliveries or not.
        if stopped < 2 {
            let app = apps.remove(0);
            app.webhooks.stop_within(Duration::from_secs(10)).await;
        }
    }
    let places = places(&made(&apps[0], endpoint, EVENTS).await);
    let order: Vec<usize> = (0..EVENTS)
        .map(|number| places[event(number).id()])
        .collect();
    assert!(order.is_sorted(), "{order:?}");
}

async fn what_waits_for_its_deliveries_is_known(app: App) {
    let endpoint = app.endpoint("https://example.com/".to_owned()).await;
    app.accept(0..3).await;
    made(&app, endpoint, 3).await;
    let lag = async || app.webhooks.fan_out_lag().await.unwrap();
    soon(async { while lag().await != FanOutLag::default() {} }).await;

    // Nothing makes deliveries any more.
    app.webhooks.stop_within(Duration::from_secs(10)).await;
    app.accept(3..5).await;
    app.accept(5..6).await;
    let behind = lag().await;
    assert_eq!(behind.messages, 2, "one for each call");
    soon(async { while lag().await.age <= behind.age {} }).await;
}

#[tokio::test]
async fn what_waits_for_its_deliveries_is_known_on_sqlite() {
    let place = Place::new();
    what_waits_for_its_deliveries_is_known(place.start(later()).await).await;
}

#[tokio::test]
async fn what_waits_for_its_deliveries_is_known_on_postgres() {
    let schema = Schema::create().await;
    what_waits_for_its_deliveries_is_known(start_on_postgres(&schema, later()).await).await;
}

fn unavailable() -> StoreError {
    StoreError::Unavailable(std::io::Error::other("the database restarts").into())
}

/// While the step fails for some events, others are accepted whose step would not fail. Claims are shorter than that.
async fn a_step_that_fails_keeps_the_order(
    step: FailingStep,
    first: Vec<WebhookEvent>,
    later_one: WebhookEvent,
) {
    const ENDPOINTS: usize = 5;
    let place = Place::new();
    let failing = Failing::new(step, unavailable());
    let holds = Holds {
        failing: Some(failing.clone()),
        ..Holds::default()
    };
    let options = later().with_lease(Duration::from_secs(2));
    let app = start(&place.file(), options, |it| Watched::hold(it, &holds)).await;
    let endpoints = endpoints(&app, ENDPOINTS).await;
    let (count, before) = (first.len() + 1, first[first.len() - 1].id().to_owned());
    app.webhooks.accept(first).await.unwrap();
    failing.happened(1).await;
    app.webhooks.accept(vec![later_one.clone()]).await.unwrap();
    failing.happened(4).await;
    assert_eq!(app.webhooks.pending().await.unwrap(), 0);
    failing.mend();
    for endpoint in endpoints {
        let places = places(&made(&app, endpoint, count).await);
        assert_eq!(places.len(), count);
        assert!(places[&before] < places[later_one.id()]);
    }
    app.stop().await;
}

#[tokio::test]
async fn regression_making_deliveries_that_fails_keeps_the_order_of_acceptance() {
    let step = FailingStep::Add("event-0");
    a_step_that_fails_keeps_the_order(step, vec![event(0)], event(1)).await;
}

#[tokio::test]
async fn regression_a_look_at_endpoints_that_fails_keeps_the_order_of_acceptance() {
    let of_anna = event(0).with_user(user("anna"));
    let step = FailingStep::Audience("anna");
    a_step_that_fails_keeps_the_order(step, vec![of_anna], event(1)).await;
}

#[tokio::test]
async fn regression_putting_events_aside_that_fails_keeps_the_order_of_acceptance() {
    let of_the_last = event(256).with_user(user("user-255"));
    a_step_that_fails_keeps_the_order(FailingStep::Defer, for_users(256), of_the_last).await;
}

/// A pause is as long as seconds, and there are many before anyone gives up.
#[tokio::test]
async fn a_stop_does_not_wait_for_a_store_that_fails() {
    let place = Place::new();
    let failing = Failing::new(FailingStep::Add("event-0"), unavailable());
    let holds = Holds {
        failing: Some(failing.clone()),
        ..Holds::default()
    };
    let options = later().with_lease(Duration::from_secs(3600));
    let app = start(&place.file(), options, |it| Watched::hold(it, &holds)).await;
    let endpoint = app.endpoint("https://example.com/".to_owned()).await;
    app.accept(0..1).await;
    failing.happened(2).await;
    soon(app.webhooks.stop_within(Duration::from_secs(3600))).await;
    app.stop().await;

    // What was not made comes before what was accepted later.
    let app = place.start(later()).await;
    app.accept(1..2).await;
    let places = places(&made(&app, endpoint, 2).await);
    assert_eq!((places["event-0"], places["event-1"]), (0, 1));
    app.stop().await;
}

#[tokio::test]
async fn what_the_store_refuses_again_and_again_lets_others_pass() {
    let place = Place::new();
    let refused = StoreError::backend(std::io::Error::other("no such column"));
    let failing = Failing::new(FailingStep::Add("event-0"), refused);
    let holds = Holds {
        failing: Some(failing.clone()),
        ..Holds::default()
    };
    let app = start(&place.file(), later(), |it| Watched::hold(it, &holds)).await;
    let endpoint = app.endpoint("https://example.com/".to_owned()).await;
    app.accept(0..1).await;
    failing.happened(1).await;
    app.accept(1..2).await;
    let first = made(&app, endpoint, 1).await;
    assert_eq!(first[0].event_id, "event-1");
    failing.mend();
    made(&app, endpoint, 2).await;
    app.stop().await;
}

/// PostgreSQL has no place for it, so that it would be tried for ever.
#[tokio::test]
async fn what_no_store_takes_goes_to_the_dead_letters_on_postgres() {
    let schema = Schema::create().await;
    let app = start_on_postgres(&schema, later()).await;
    let endpoint = app.endpoint("https://example.com/".to_owned()).await;
    let mut unusable = serde_json::to_value([event(0)]).unwrap();
    unusable[0]["id"] = "event-\0".into();
    let message = NewMessage::new(unusable.to_string()).with_header("newest-endpoint", "1");
    app.streams.publish(STREAM, message).await.unwrap();
    app.accept(1..2).await;
    let made = made(&app, endpoint, 1).await;
    assert_eq!(made[0].event_id, "event-1");
    let dead = format!("{STREAM}.dead");
    soon(async {
        while app
            .streams
            .stats(&dead)
            .await
            .map_or(0, |stats| stats.messages)
            != 1
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    app.stop().await;
}
