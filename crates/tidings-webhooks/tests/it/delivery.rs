//! The way of a delivery, from acceptance to its outcome.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use tidings::LaneConfig;
use tidings::signing::{TimestampedVerifier, Verifier};
use tidings_test_support::{Reply, Script};
use tidings_webhooks::{
    DeliveryState, EndpointSettings, Format, NewEndpoint, Owner, Replay, STREAM, SetEnabled,
    SignatureScheme,
};

use crate::support::{Place, event, numbers, receiver_of, schedule, soon, user};

#[tokio::test]
async fn an_accepted_event_arrives_signed() {
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let app = place.start(schedule(&[0])).await;
    let (endpoint, secret) = app
        .create(EndpointSettings::new(receiver.url("/hook")))
        .await;
    app.accept(7..8).await;

    let request = soon(receiver.request(1)).await;
    let now = Timestamp::now();
    let verified = Verifier::new(secret).verify(&request.head.headers, &request.body, now);
    assert_eq!(verified.unwrap().id, "event-7");
    assert_eq!(request.header("content-type"), Some("application/json"));
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(
        (&body["id"], &body["type"]),
        (&"event-7".into(), &"order.paid".into())
    );
    assert_eq!(
        (&body["data"]["n"], &body["user_id"]),
        (&7.into(), &serde_json::Value::Null)
    );

    let delivered = app.until(endpoint.id, DeliveryState::Delivered, 1).await;
    assert_eq!(
        (delivered[0].attempts, &*delivered[0].event_id),
        (1, "event-7")
    );
    let attempts = app.attempts(delivered[0].id).await;
    assert_eq!((attempts.len(), attempts[0].status), (1, Some(200)));
    let health = app.webhooks.health(endpoint.id).await.unwrap().unwrap();
    assert_eq!((health.pending, health.success_rate), (0, Some(1.0)));
    assert!(health.last_success_at.is_some() && health.last_failure_at.is_none());
    app.stop().await;
}

#[tokio::test]
async fn an_endpoint_is_called_as_its_owner_wants() {
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let app = place.start(schedule(&[0])).await;
    let mut settings = EndpointSettings::new(receiver.url("/hook"));
    settings.format = Format::Raw;
    settings
        .headers
        .insert("x-team".to_owned(), "billing".to_owned());
    settings.signatures = vec![SignatureScheme::Timestamped];
    settings.event_types = vec!["order.*".parse().unwrap()];
    let new = NewEndpoint::new(Owner::User(user("anna")), settings);
    let (endpoint, secret) = app.webhooks.create_endpoint(new).await.unwrap();
    let of_bo = event(1).with_user(user("bo"));
    let of_anna = event(2).with_user(user("anna"));
    app.webhooks
        .accept(vec![event(0), of_bo, of_anna])
        .await
        .unwrap();

    let request = soon(receiver.request(1)).await;
    assert_eq!(request.body, r#"{"n":2}"#);
    assert_eq!(request.header("x-team"), Some("billing"));
    assert_eq!(request.header("webhook-id"), Some("event-2"));
    let by_timestamp = TimestampedVerifier::new(secret.expose().as_bytes()).unwrap();
    let verified = by_timestamp.verify(&request.head.headers, &request.body, Timestamp::now());
    assert!(verified.is_ok());
    app.until(endpoint.id, DeliveryState::Delivered, 1).await;
    assert_eq!(receiver.requests().len(), 1);
    app.stop().await;
}

#[tokio::test]
async fn the_body_of_a_delivery_is_what_its_endpoint_gets() {
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let app = place.start(schedule(&[0])).await;
    let settings = EndpointSettings::new(receiver.url("/hook"));
    let (endpoint, _) = app.create(settings).await;
    app.accept(7..8).await;
    let request = soon(receiver.request(1)).await;
    let id = app.until(endpoint.id, DeliveryState::Delivered, 1).await[0].id;
    let body = async || app.webhooks.body(id).await.unwrap();
    assert_eq!(body().await.unwrap(), request.body);
    let raw = |settings: &mut EndpointSettings| settings.format = Format::Raw;
    app.webhooks
        .update_endpoint(endpoint.id, raw)
        .await
        .unwrap();
    assert_eq!(body().await.unwrap(), r#"{"n":7}"#);
    assert!(app.webhooks.remove_endpoint(endpoint.id).await.unwrap());
    assert_eq!(body().await.unwrap(), request.body);
    let unknown = "dlv_7fffffffffffffff".parse().unwrap();
    assert_eq!(app.webhooks.body(unknown).await.unwrap(), None);
    app.stop().await;
}

#[tokio::test]
async fn both_signatures_are_on_a_request_at_once() {
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let app = place.start(schedule(&[0])).await;
    let mut settings = EndpointSettings::new(receiver.url("/"));
    settings.signatures = vec![SignatureScheme::Standard, SignatureScheme::Timestamped];
    let (_, secret) = app.create(settings).await;
    app.accept(0..1).await;
    let request = soon(receiver.request(1)).await;
    let now = Timestamp::now();
    let by_timestamp = TimestampedVerifier::new(secret.expose().as_bytes()).unwrap();
    let headers = &request.head.headers;
    assert!(by_timestamp.verify(headers, &request.body, now).is_ok());
    assert!(
        Verifier::new(secret)
            .verify(headers, &request.body, now)
            .is_ok()
    );
    app.stop().await;
}

#[tokio::test]
async fn regression_a_refusal_is_followed_by_the_next_attempt() {
    for status in [404, 401, 308, 409] {
        let status = StatusCode::from_u16(status).unwrap();
        let script = Script::sequence([Reply::new(status)], Reply::new(StatusCode::NO_CONTENT));
        let receiver = receiver_of(script).await;
        let place = Place::new();
        let app = place.start(schedule(&[0, 20, 20])).await;
        let endpoint = app.endpoint(receiver.url("/")).await;
        app.accept(0..1).await;
        let delivered = app.until(endpoint, DeliveryState::Delivered, 1).await;
        let attempts = app.attempts(delivered[0].id).await;
        let statuses: Vec<_> = attempts.iter().map(|attempt| attempt.status).collect();
        assert_eq!(statuses, [Some(status.as_u16()), Some(204)]);
        assert_eq!((attempts[0].number, attempts[1].number), (1, 2));
        app.stop().await;
    }
}

#[tokio::test]
async fn an_exhausted_delivery_is_kept_and_can_be_retried() {
    let receiver = receiver_of(Reply::new(StatusCode::BAD_GATEWAY)).await;
    let place = Place::new();
    let app = place.start(schedule(&[0, 10, 10])).await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    app.accept(0..1).await;
    let failed = app.until(endpoint, DeliveryState::Failed, 1).await;
    assert_eq!(failed[0].attempts, 3);
    receiver.switch_to(Reply::ok());
    let again = app.webhooks.retry(failed[0].id).await.unwrap().unwrap();
    assert_eq!(again.state, DeliveryState::Pending);
    let delivered = app.until(endpoint, DeliveryState::Delivered, 1).await;
    assert_eq!((delivered[0].id, delivered[0].attempts), (failed[0].id, 4));
    app.stop().await;
}

#[tokio::test]
async fn regression_a_retry_is_not_undone_by_the_attempt_under_way() {
    // Of the schedule, the next attempt is after an hour, or there is none.
    for delays in [&[0, 3_600_000][..], &[0]] {
        let gate = tidings_test_support::Gate::new();
        let fails = Reply::new(StatusCode::BAD_GATEWAY).after(gate.clone());
        let receiver = receiver_of(Script::sequence([fails], Reply::ok())).await;
        let place = Place::new();
        let app = place.start(schedule(delays)).await;
        let endpoint = app.endpoint(receiver.url("/")).await;
        app.accept(0..1).await;
        soon(receiver.request(1)).await;
        let id = app.until(endpoint, DeliveryState::Pending, 1).await[0].id;
        app.webhooks.retry(id).await.unwrap().unwrap();
        gate.open();
        let delivered = app.until(endpoint, DeliveryState::Delivered, 1).await;
        assert_eq!((delivered[0].id, delivered[0].attempts), (id, 2));
        app.stop().await;
    }
}

#[tokio::test]
async fn regression_setting_the_clock_back_does_not_delay_a_retry() {
    let script = Script::sequence([Reply::new(StatusCode::BAD_GATEWAY)], Reply::ok());
    let receiver = receiver_of(script).await;
    let offset = Arc::new(AtomicI64::new(0));
    let wall = {
        let offset = Arc::clone(&offset);
        move || {
            let seconds = Duration::from_secs(offset.load(Ordering::Relaxed).unsigned_abs());
            Timestamp::now().checked_sub(seconds).unwrap()
        }
    };
    let place = Place::new();
    let options = schedule(&[0, 1000]).with_wall_clock(wall);
    let app = place.start(options).await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    app.accept(0..1).await;
    let first = soon(receiver.request(1)).await;
    offset.store(3600, Ordering::Relaxed);
    let second = soon(receiver.request(2)).await;
    let wait = second.received_at - first.received_at;
    assert!(
        wait >= Duration::from_secs(1) && wait < Duration::from_secs(20),
        "{wait:?}"
    );
    let delivered = app.until(endpoint, DeliveryState::Delivered, 1).await;
    let wall = Timestamp::now().as_second() - 3600;
    assert!((delivered[0].finished_at.unwrap().as_second() - wall).abs() < 60);
    app.stop().await;

    // Nor does a restart on the wrong side of the change.
    let receiver_is_down = Reply::new(StatusCode::BAD_GATEWAY);
    receiver.switch_to(receiver_is_down);
    let app = place.start(schedule(&[0, 1000])).await;
    app.accept(1..2).await;
    soon(receiver.request(3)).await;
    app.stop().await;
    receiver.switch_to(Reply::ok());
    let back = || {
        Timestamp::now()
            .checked_sub(Duration::from_secs(3600))
            .unwrap()
    };
    let app = place
        .start(schedule(&[0, 1000]).with_wall_clock(back))
        .await;
    app.until(endpoint, DeliveryState::Delivered, 2).await;
    app.stop().await;
}

#[tokio::test]
async fn a_gone_endpoint_is_disabled_and_what_it_missed_is_replayed() {
    let receiver = receiver_of(Reply::gone()).await;
    let watcher = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let app = place.start(schedule(&[0, 10_000])).await;
    let before = Timestamp::now();
    let mut settings = EndpointSettings::new(watcher.url("/"));
    settings.event_types = vec!["tidings.*".parse().unwrap()];
    app.create(settings).await;
    let endpoint = app.endpoint(receiver.url("/?key=secret")).await;
    app.accept(0..20).await;
    app.until(endpoint, DeliveryState::Cancelled, 19).await;
    let failed = app.until(endpoint, DeliveryState::Failed, 1).await;
    assert_eq!(failed[0].reason.as_deref(), Some("the endpoint is gone"));
    let disabled = app.webhooks.endpoint(endpoint).await.unwrap().unwrap();
    assert!(!disabled.enabled && disabled.disabled_because.is_some());
    assert!(app.webhooks.retry(failed[0].id).await.unwrap().is_none());
    // What comes meanwhile is kept, and not sent.
    app.accept(20..25).await;

    receiver.switch_to(Reply::ok());
    let replay = Replay::since(before).with_rate(1000);
    assert!(!app.webhooks.replay(endpoint, replay).await.unwrap());
    let enabled = app
        .webhooks
        .enable_endpoint(endpoint)
        .await
        .unwrap()
        .unwrap();
    assert!(enabled.enabled);
    app.accept(25..26).await;
    app.until(endpoint, DeliveryState::Delivered, 1).await;
    let replay = Replay::since(before).with_rate(1000);
    assert!(app.webhooks.replay(endpoint, replay).await.unwrap());
    let delivered = app.until(endpoint, DeliveryState::Delivered, 26).await;
    assert_eq!(delivered.len(), 26);

    let of_type = |request: &tidings_test_support::Request| {
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        assert!(!body.to_string().contains("key=secret"));
        body["type"].as_str().unwrap().to_owned()
    };
    let seen = [
        soon(watcher.request(1)).await,
        soon(watcher.request(2)).await,
        soon(watcher.request(3)).await,
    ];
    let seen: Vec<_> = seen.iter().map(of_type).collect();
    assert_eq!(
        seen,
        [
            "tidings.endpoint.created",
            "tidings.endpoint.disabled",
            "tidings.endpoint.enabled"
        ]
    );
    app.stop().await;
}

/// The reply is about a URL that the endpoint had when the request began. It was changed by the instance that sends, or by
/// another one, of which that knows nothing yet.
#[tokio::test(flavor = "multi_thread")]
async fn regression_a_410_of_an_earlier_url_does_not_disable_an_endpoint() {
    for is_changed_elsewhere in [false, true] {
        let gate = tidings_test_support::Gate::new();
        let old = receiver_of(Reply::gone().after(gate.clone())).await;
        let new = receiver_of(Reply::ok()).await;
        let place = Place::new();
        let options = || schedule(&[0, 3_600_000]).with_lease(Duration::from_secs(3600));
        let one = place.start(options()).await;
        let other = place.start(options()).await;
        let endpoint = one.endpoint(old.url("/")).await;
        one.accept(0..1).await;
        soon(old.request(1)).await;
        let changing = if is_changed_elsewhere { &other } else { &one };
        let change = |settings: &mut EndpointSettings| settings.url = new.url("/");
        let changed = changing.webhooks.update_endpoint(endpoint, change).await;
        changed.unwrap();
        gate.open();
        let delivered = one.until(endpoint, DeliveryState::Delivered, 1).await;
        let attempts = one.attempts(delivered[0].id).await;
        let statuses: Vec<_> = attempts.iter().map(|attempt| attempt.status).collect();
        assert_eq!(statuses, [Some(410), Some(200)]);
        let endpoint = one.webhooks.endpoint(endpoint).await.unwrap().unwrap();
        assert!(endpoint.enabled);
        one.stop().await;
        other.stop().await;
    }
}

/// What waits is not sent to the new URL before it is cancelled, and one event tells of both changes.
#[tokio::test]
async fn an_endpoint_is_changed_and_disabled_at_once() {
    let old = receiver_of(Reply::new(StatusCode::BAD_GATEWAY)).await;
    let (new, watcher) = (
        receiver_of(Reply::ok()).await,
        receiver_of(Reply::ok()).await,
    );
    let place = Place::new();
    let app = place.start(schedule(&[0, 3_600_000])).await;
    let mut settings = EndpointSettings::new(watcher.url("/"));
    settings.event_types = vec!["tidings.*".parse().unwrap()];
    app.create(settings).await;
    let endpoint = app.endpoint(old.url("/")).await;
    app.accept(0..1).await;
    soon(old.request(1)).await;
    let change = |settings: &mut EndpointSettings| settings.url = new.url("/");
    let disabled = SetEnabled::Disable("it moves");
    let changed = app
        .webhooks
        .update_endpoint_with(endpoint, disabled, change);
    let changed = changed.await.unwrap().unwrap();
    assert_eq!(changed.settings.url, new.url("/"));
    assert_eq!(changed.disabled_because.as_deref(), Some("it moves"));
    app.until(endpoint, DeliveryState::Cancelled, 1).await;
    let changed = app
        .webhooks
        .update_endpoint_with(endpoint, SetEnabled::Enable, |settings| {
            "moved".clone_into(&mut settings.description);
        });
    assert!(changed.await.unwrap().unwrap().enabled);
    let mut types = Vec::new();
    for number in 1..4 {
        let request = soon(watcher.request(number)).await;
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        types.push(body["type"].as_str().unwrap().to_owned());
    }
    let expected = ["created", "disabled", "enabled"];
    assert_eq!(types, expected.map(|it| format!("tidings.endpoint.{it}")));
    assert!(new.requests().is_empty());
    app.stop().await;
}

/// The limit is on how many begin in a second, not on how many are under way.
#[tokio::test]
async fn regression_a_slow_endpoint_gets_its_rate() {
    let gate = tidings_test_support::Gate::new();
    let script = Script::sequence([Reply::ok()], Reply::ok().after(gate.clone()));
    let receiver = receiver_of(script).await;
    let place = Place::new();
    let in_flight = LaneConfig::default().with_in_flight(16, 16);
    let app = place.start(schedule(&[0]).with_lane(in_flight)).await;
    let mut settings = EndpointSettings::new(receiver.url("/"));
    settings.rate_limit = NonZeroU32::new(5);
    let (endpoint, _) = app.create(settings).await;
    app.accept(0..1).await;
    app.until(endpoint.id, DeliveryState::Delivered, 1).await;
    app.accept(1..13).await;
    soon(receiver.request(13)).await;
    gate.open();
    app.until(endpoint.id, DeliveryState::Delivered, 13).await;
    app.stop().await;
}

/// What has waited for a slow endpoint is not sent all at once when it replies again.
#[tokio::test]
async fn a_rate_limit_holds_after_a_stall() {
    let gate = tidings_test_support::Gate::new();
    let script = Script::sequence([Reply::ok().after(gate.clone())], Reply::ok());
    let receiver = receiver_of(script).await;
    let place = Place::new();
    let in_flight = LaneConfig::default().with_in_flight(1, 1);
    let app = place.start(schedule(&[0]).with_lane(in_flight)).await;
    let mut settings = EndpointSettings::new(receiver.url("/"));
    settings.rate_limit = NonZeroU32::new(20);
    let (endpoint, _) = app.create(settings).await;
    app.accept(0..31).await;
    soon(receiver.request(1)).await;
    // In the time that the others would have needed.
    tokio::time::sleep(Duration::from_secs(2)).await;
    gate.open();
    app.until(endpoint.id, DeliveryState::Delivered, 31).await;
    let requests = receiver.requests();
    let took = requests[30].received_at - requests[1].received_at;
    assert!(took >= Duration::from_secs(1), "{took:?}");
    app.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_fails_for_too_long_is_disabled() {
    let receiver = receiver_of(Reply::new(StatusCode::BAD_GATEWAY)).await;
    let place = Place::new();
    let options = schedule(&[0, 50, 50, 50, 50, 50, 50, 50]);
    let app = place
        .start(options.with_disable_after(Duration::from_millis(100)))
        .await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    app.accept(0..1).await;
    app.until(endpoint, DeliveryState::Cancelled, 1).await;
    let disabled = app.webhooks.endpoint(endpoint).await.unwrap().unwrap();
    assert_eq!(
        disabled.disabled_because.as_deref(),
        Some("no attempt succeeded for too long")
    );
    app.stop().await;
}

#[tokio::test]
async fn regression_a_removed_endpoint_gets_no_other_request() {
    let gate = tidings_test_support::Gate::new();
    let receiver = receiver_of(Reply::ok().after(gate.clone())).await;
    let place = Place::new();
    let app = place.start(schedule(&[0])).await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    app.accept(0..100).await;
    soon(receiver.request(1)).await;
    // What it has in memory waits for the attempt under way.
    assert!(app.webhooks.remove_endpoint(endpoint).await.unwrap());
    app.until(endpoint, DeliveryState::Cancelled, 100).await;
    gate.open();
    app.stop().await;
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn regression_an_open_circuit_ends_with_a_retry_or_a_change_of_the_endpoint() {
    let refusing = receiver_of(Reply::new(StatusCode::BAD_GATEWAY)).await;
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let breaker = tidings::circuit_breaker::CircuitBreakerConfig::default()
        .with_max_open_for(Duration::from_secs(3600))
        .with_open_for(Duration::from_secs(3600));
    let lane = tidings::LaneConfig::default().with_circuit_breaker(breaker);
    let app = place.start(schedule(&[0, 1]).with_lane(lane)).await;
    let endpoint = app.endpoint(refusing.url("/")).await;
    app.accept(0..3).await;
    let until_open = async || {
        soon(async {
            let health = async || app.webhooks.health(endpoint).await.unwrap().unwrap();
            while health().await.circuit != Some("open") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    };
    until_open().await;
    let failed = app.until(endpoint, DeliveryState::Failed, 1).await;
    let attempts = refusing.requests().len();

    app.webhooks.retry(failed[0].id).await.unwrap().unwrap();
    soon(refusing.request(u64::try_from(attempts).unwrap() + 1)).await;
    app.accept(3..10).await;
    until_open().await;

    let moved = app
        .webhooks
        .update_endpoint(endpoint, |settings| settings.url = receiver.url("/"))
        .await
        .unwrap();
    assert!(moved.is_some());
    app.until(endpoint, DeliveryState::Delivered, 1).await;
    app.stop().await;
}

#[tokio::test]
async fn regression_an_attempt_under_way_does_not_change_a_cancelled_delivery() {
    let gate = tidings_test_support::Gate::new();
    let script = Reply::new(StatusCode::BAD_GATEWAY).after(gate.clone());
    let receiver = receiver_of(script).await;
    let place = Place::new();
    let app = place.start(schedule(&[0])).await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    app.accept(0..1).await;
    soon(receiver.request(1)).await;
    assert!(app.webhooks.remove_endpoint(endpoint).await.unwrap());
    let cancelled = app.until(endpoint, DeliveryState::Cancelled, 1).await;
    gate.open();
    let id = cancelled[0].id;
    soon(async {
        while app.attempts(id).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let after = app.webhooks.delivery(id).await.unwrap().unwrap();
    assert_eq!(after.state, DeliveryState::Cancelled);
    assert_eq!(after.reason, cancelled[0].reason);
    assert!(app.webhooks.endpoint(endpoint).await.unwrap().is_none());
    app.stop().await;
}

#[tokio::test]
async fn an_event_that_no_endpoint_can_want_costs_nothing() {
    let place = Place::new();
    let app = place.start(schedule(&[0])).await;
    let new = NewEndpoint::new(
        Owner::User(user("anna")),
        EndpointSettings::new("http://127.0.0.1:9/"),
    );
    app.webhooks.create_endpoint(new).await.unwrap();
    let stream = app.webhooks.stream().clone();
    let of_bo = event(1).with_user(user("bo"));
    let accepted = app
        .database
        .as_ref()
        .unwrap()
        .write(move |tx| tidings_webhooks::sqlite::accept_in(tx, &stream, &[of_bo]))
        .await;
    assert!(!accepted.unwrap());
    app.accept(2..3).await;
    let stats = app.streams.stats(STREAM).await.unwrap();
    assert_eq!(stats.messages, 0);
    app.stop().await;
}

#[tokio::test]
async fn an_event_is_accepted_in_the_applications_own_transaction() {
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let app = place.start(schedule(&[0])).await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    for (number, is_committed) in [(0, false), (1, true)] {
        let stream = app.webhooks.stream().clone();
        let written = app
            .database
            .as_ref()
            .unwrap()
            .write(move |tx| {
                tidings_webhooks::sqlite::accept_in(tx, &stream, &[event(number)])?;
                is_committed
                    .then_some(())
                    .ok_or(tidings_webhooks::StoreError::Closed)
            })
            .await;
        assert_eq!(written.is_ok(), is_committed);
        app.webhooks.wake();
    }
    app.until(endpoint, DeliveryState::Delivered, 1).await;
    assert_eq!(numbers(&receiver), [1]);
    app.stop().await;
}

#[tokio::test]
async fn a_rate_limit_holds() {
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let app = place.start(schedule(&[0])).await;
    let mut settings = EndpointSettings::new(receiver.url("/"));
    settings.rate_limit = NonZeroU32::new(20);
    let (endpoint, _) = app.create(settings).await;
    app.accept(0..11).await;
    app.until(endpoint.id, DeliveryState::Delivered, 11).await;
    let requests = receiver.requests();
    let took = requests[10].received_at - requests[0].received_at;
    assert!(took >= Duration::from_millis(450), "{took:?}");
    app.stop().await;
}

#[tokio::test]
async fn a_rotated_secret_signs_beside_the_old_one() {
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let app = place.start(schedule(&[0])).await;
    let (endpoint, old) = app.create(EndpointSettings::new(receiver.url("/"))).await;
    let overlap = Duration::from_secs(3600);
    let new = app.webhooks.rotate_secret(endpoint.id, None, overlap).await;
    let new = new.unwrap().unwrap();
    let test = app.webhooks.send_test(endpoint.id).await.unwrap().unwrap();
    let request = soon(receiver.request(1)).await;
    for secret in [old, new] {
        let now = Timestamp::now();
        let verified = Verifier::new(secret).verify(&request.head.headers, &request.body, now);
        assert!(verified.is_ok());
    }
    let delivered = app.until(endpoint.id, DeliveryState::Delivered, 1).await;
    assert_eq!(
        (delivered[0].id, &*delivered[0].event_type),
        (test, "tidings.test")
    );
    app.stop().await;
}
