//! What failed once is attempted again, when it is due.

use serde_json::{Value, json};

use super::{Webhooks, create, delivery_in};
use crate::support::{Home, http, soon};

#[tokio::test]
async fn a_failed_delivery_is_tried_again_after_a_restart_under_the_same_id() {
    let home = Home::with(&["--webhook-schedule", "0s,1s,1s,1s,1s"]);
    let server = home.start().await;
    let mut receiver = Webhooks::start().await;
    receiver.reply_with(503);
    create(&server, "/v1/endpoints", json!({ "url": receiver.url() })).await;
    let event = server.notify("anna", json!(1)).await;
    assert_eq!(receiver.next().await.id(), event["id"]);
    server.kill().await;
    receiver.reply_with(200);
    let server = home.start().await;
    assert_eq!(receiver.next().await.id(), event["id"]);
    delivery_in(&server, "delivered").await;
}

#[tokio::test]
async fn regression_a_crash_does_not_bring_a_retry_forward() {
    let home = Home::with(&["--webhook-schedule", "0s,1h"]);
    let server = home.start().await;
    let mut receiver = Webhooks::start().await;
    receiver.reply_with(503);
    create(&server, "/v1/endpoints", json!({ "url": receiver.url() })).await;
    // Fewer than the failures that open the circuit.
    for n in 0..3 {
        server.notify("anna", json!(n)).await;
        receiver.next().await;
    }
    soon("three recorded attempts", async {
        loop {
            let list = server.get("/v1/deliveries?state=pending").await;
            let deliveries = list["data"].as_array().unwrap();
            if deliveries.iter().all(|delivery| delivery["attempts"] == 1) {
                break;
            }
        }
    })
    .await;
    server.kill().await;
    receiver.reply_with(200);
    let server = home.start().await;
    let after = server.notify("anna", json!("after")).await;
    // The others wait for their hour.
    assert_eq!(receiver.next().await.id(), after["id"]);
    delivery_in(&server, "delivered").await;
    let list = server.get("/v1/deliveries?state=pending").await;
    assert_eq!(list["data"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_status_that_is_no_success_is_followed_by_another_attempt() {
    for status in [404, 401, 403, 308, 409] {
        let home = Home::with(&["--webhook-schedule", "0s,10ms,10ms"]);
        let server = home.start().await;
        let mut receiver = Webhooks::start().await;
        receiver.reply_with(status);
        create(&server, "/v1/endpoints", json!({ "url": receiver.url() })).await;
        server.notify("anna", json!(1)).await;
        receiver.next().await;
        receiver.reply_with(204);
        let delivery = delivery_in(&server, "delivered").await;
        assert!(delivery["attempts"].as_u64().unwrap() > 1, "{status}");
    }
}

#[tokio::test]
async fn a_delivery_that_ended_can_be_sent_again() {
    let home = Home::with(&["--webhook-schedule", "0s"]);
    let server = home.start().await;
    let mut receiver = Webhooks::start().await;
    receiver.reply_with(500);
    create(&server, "/v1/endpoints", json!({ "url": receiver.url() })).await;
    let event = server.notify("anna", json!(1)).await;
    receiver.next().await;
    let failed = delivery_in(&server, "failed").await;
    receiver.reply_with(204);
    let path = format!("/v1/deliveries/{}", failed["id"].as_str().unwrap());
    let retried = server.post(&format!("{path}/retry"), &Value::Null).await;
    assert_eq!(retried.status(), 200);
    assert_eq!(receiver.next().await.id(), event["id"]);
    let delivered = delivery_in(&server, "delivered").await;
    assert_eq!(delivered["id"], failed["id"]);
    assert_eq!(server.get(&path).await["state"], "delivered");
    let attempts = server.get(&format!("{path}/attempts")).await;
    assert_eq!(attempts["data"][0]["status"], 500);
    assert_eq!(attempts["data"][1]["status"], 204);
    let unknown = "/v1/deliveries/dlv_0000000000000063/retry";
    assert_eq!(server.post(unknown, &Value::Null).await.status(), 404);
}

#[tokio::test]
async fn what_an_endpoint_missed_is_replayed_once_it_is_enabled_again() {
    let home = Home::with(&["--webhook-schedule", "0s,1s"]);
    let server = home.start().await;
    let mut receiver = Webhooks::start().await;
    receiver.reply_with(410);
    let endpoint = create(&server, "/v1/endpoints", json!({ "url": receiver.url() })).await;
    let path = format!("/v1/endpoints/{}", endpoint["id"].as_str().unwrap());
    let since = server.notify("anna", json!("gone")).await["timestamp"].clone();
    receiver.next().await;
    soon("the disabling", async {
        while server.get(&path).await["enabled"] == true {}
    })
    .await;
    let replay = json!({ "since": since });
    let refused = server.post(&format!("{path}/replay"), &replay).await;
    assert_eq!(refused.status(), 409);
    server.notify("anna", json!("meanwhile")).await;
    // Events are fanned out in order: when a later one arrives, this one was kept for the disabled endpoint.
    let mut later = Webhooks::start().await;
    let of_ben = json!({ "url": later.url() });
    create(&server, "/v1/users/ben/endpoints", of_ben).await;
    server.notify("ben", json!("later")).await;
    later.next().await;
    receiver.reply_with(204);
    let enabled = server.patch(&path, &json!({ "enabled": true })).await;
    assert_eq!(enabled["enabled"], true);
    assert_eq!(enabled.get("disabled_because"), None);

    let replay = json!({ "since": since, "per_second": 100 });
    let accepted = server.post(&format!("{path}/replay"), &replay).await;
    assert_eq!(accepted.status(), 202);
    let replayed = [receiver.next().await, receiver.next().await];
    let data = replayed.map(|webhook| webhook.json()["data"].clone());
    assert_eq!(data, [json!("gone"), json!("meanwhile")]);
    soon("the success in the health", async {
        while server.get(&path).await["health"]["last_success_at"].is_null() {}
    })
    .await;
}

#[tokio::test]
async fn a_replay_sends_nothing_from_before_the_endpoint_was_created_and_no_tests_of_others() {
    let home = Home::new();
    let server = home.start().await;
    let mut first = Webhooks::start().await;
    let everything = json!({ "url": first.url(), "event_types": ["*", "tidings.test"] });
    let created = create(&server, "/v1/endpoints", everything).await;
    let since = server.notify("anna", json!("before")).await["timestamp"].clone();
    first.next().await;
    let test = format!("/v1/endpoints/{}/test", created["id"].as_str().unwrap());
    let tested = server.post(&test, &Value::Null).await;
    assert_eq!(tested.status(), 202);
    first.next().await;

    let mut second = Webhooks::start().await;
    let off =
        json!({ "url": second.url(), "event_types": ["*", "tidings.test"], "enabled": false });
    let endpoint = create(&server, "/v1/endpoints", off).await;
    let path = format!("/v1/endpoints/{}", endpoint["id"].as_str().unwrap());
    let tested = server.post(&test, &Value::Null).await;
    assert_eq!(tested.status(), 202);
    first.next().await;
    server.notify("anna", json!("missed")).await;
    first.next().await;
    server.patch(&path, &json!({ "enabled": true })).await;
    let replay = json!({ "since": since, "per_second": 100 });
    let accepted = server.post(&format!("{path}/replay"), &replay).await;
    assert_eq!(accepted.status(), 202);
    assert_eq!(second.next().await.json()["data"], "missed");
    // What comes next is not from the replay.
    soon("the end of the replay", async {
        while !server.get(&path).await["health"]["replay"].is_null() {}
    })
    .await;
    server.notify("anna", json!("after")).await;
    assert_eq!(second.next().await.json()["data"], "after");
}

#[tokio::test]
async fn a_replay_ends_when_it_is_stopped_or_its_endpoint_disabled() {
    let home = Home::new();
    let server = home.start().await;
    let mut receiver = Webhooks::start().await;
    let off = json!({ "url": receiver.url(), "enabled": false });
    let endpoint = create(&server, "/v1/endpoints", off).await;
    let path = format!("/v1/endpoints/{}", endpoint["id"].as_str().unwrap());
    let first = server.notify("anna", json!(0)).await;
    for n in 1..100 {
        server.notify("anna", json!(n)).await;
    }
    let replay = format!("{path}/replay");
    let slowly = json!({ "since": first["timestamp"], "per_second": 1 });
    let stop = async || {
        let stopped = http().delete(server.at(&replay)).send().await;
        assert_eq!(stopped.unwrap().status(), 204);
    };
    let switch = async |enabled: bool| server.patch(&path, &json!({ "enabled": enabled })).await;
    for n in 0..2 {
        switch(true).await;
        let accepted = server.post(&replay, &slowly).await;
        assert_eq!(accepted.status(), 202);
        assert_eq!(receiver.next().await.json()["data"], n);
        if n == 0 {
            stop().await;
        } else {
            switch(false).await;
            switch(true).await;
        }
        let health = server.get(&path).await["health"].clone();
        assert_eq!(health["replay"], Value::Null);
    }
    // There is nothing left to stop.
    stop().await;
    let unknown = server.at("/v1/endpoints/ep_0000000000000009/replay");
    let unknown = http().delete(unknown).send().await.unwrap();
    assert_eq!(unknown.status(), 404);
    // What was due already may still come; ninety others do not.
    server.notify("anna", json!("after")).await;
    let mut late = 0;
    while receiver.next().await.json()["data"] != "after" {
        late += 1;
    }
    assert!(late < 10, "{late}");
}
