//! What arrives, and what is recorded of it.

use std::time::Duration;

use serde_json::{Value, json};
use tidings::signing::{Secret, Verifier};
use tidings_test_support::{Behaviour, Receiver};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::{Webhooks, create, delivery_in};
use crate::support::{Home, http, soon};
use crate::websocket::Socket;

#[tokio::test]
async fn an_accepted_event_is_posted_signed_and_its_attempt_recorded() {
    let home = Home::new();
    let server = home.start().await;
    let mut receiver = Webhooks::start().await;
    let endpoint = create(
        &server,
        "/v1/users/anna/endpoints",
        json!({ "url": receiver.url() }),
    )
    .await;
    assert_eq!(endpoint["enabled"], true);
    assert_eq!(endpoint["event_types"], json!([]));
    let event = server.notify("anna", json!({ "n": 1 })).await;

    let webhook = receiver.next().await;
    assert_eq!(webhook.id(), event["id"]);
    assert_eq!(webhook.0.head.headers["content-type"], "application/json");
    let secret = Secret::parse(endpoint["secret"].as_str().unwrap()).unwrap();
    webhook.verify(&Verifier::new(secret)).unwrap();
    assert_eq!(
        webhook.json(),
        json!({
            "id": event["id"], "type": "test", "timestamp": event["timestamp"],
            "user_id": "anna", "data": { "n": 1 },
        })
    );

    let delivery = delivery_in(&server, "delivered").await;
    assert_eq!(delivery["endpoint_id"], endpoint["id"]);
    let id = delivery["id"].as_str().unwrap();
    let attempts = server.get(&format!("/v1/deliveries/{id}/attempts")).await;
    assert_eq!(attempts["data"][0]["status"], 204);
    assert_eq!(attempts["data"][0]["number"], 1);
    // A secret is shown once.
    let list = server.get("/v1/users/anna/endpoints").await;
    assert!(list["data"][0].get("secret").is_none());
}

/// Most parsers read 128 levels, and a document has some of its own around the payload.
#[tokio::test]
async fn the_deepest_payload_is_read_in_every_document_that_carries_it() {
    let home = Home::new();
    let server = home.start().await;
    let mut receiver = Webhooks::start().await;
    create(&server, "/v1/endpoints", json!({ "url": receiver.url() })).await;
    let mut events = server.events("anna", "").await;
    events.until("tidings.caught_up").await;
    let mut socket = Socket::open(&server, "/v1/users/anna/ws").await;
    socket.until("caught_up").await;
    let mut depth = 128;
    let (deep, created) = loop {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let body = format!(r#"{{"user_ids":["anna"],"payload":{deep}}}"#);
        let request = http().post(server.at("/v1/notifications")).body(body);
        let response = request.send().await.unwrap();
        if response.status() == 201 {
            break (deep, response.json::<Value>().await.unwrap());
        }
        depth -= 1;
    };
    assert!(depth > 100, "{depth}");
    let payload: Value = serde_json::from_str(&deep).unwrap();
    assert_eq!(created["data"][0]["payload"], payload);
    assert_eq!(events.next().await.json()["payload"], payload);
    assert_eq!(socket.next().await["data"]["payload"], payload);
    assert_eq!(receiver.next().await.json()["data"], payload);
    let page = server.get("/v1/users/anna/notifications").await;
    assert_eq!(page["data"][0]["payload"], payload);
}

#[tokio::test]
async fn endpoints_hear_of_their_user_and_their_types_only() {
    let home = Home::new();
    let server = home.start().await;
    let (mut all, mut anna, mut news) = (
        Webhooks::start().await,
        Webhooks::start().await,
        Webhooks::start().await,
    );
    create(&server, "/v1/endpoints", json!({ "url": all.url() })).await;
    create(
        &server,
        "/v1/users/anna/endpoints",
        json!({ "url": anna.url() }),
    )
    .await;
    let filter = json!({ "url": news.url(), "event_types": ["news", "alert"] });
    create(&server, "/v1/endpoints", filter).await;
    let mut ids = Vec::new();
    for (user, event_type) in [("ben", "chat"), ("anna", "chat"), ("ben", "news")] {
        let body = json!({ "user_id": user, "type": event_type, "payload": 1 });
        ids.push(create(&server, "/v1/notifications", body).await["id"].clone());
    }
    assert_eq!(anna.next().await.id(), ids[1]);
    assert_eq!(news.next().await.id(), ids[2]);
    let mut heard = [
        all.next().await.id().to_owned(),
        all.next().await.id().to_owned(),
        all.next().await.id().to_owned(),
    ];
    let mut sent: Vec<_> = ids
        .iter()
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    heard.sort();
    sent.sort();
    assert_eq!(heard.as_slice(), sent);
}

#[tokio::test]
async fn a_stalled_endpoint_leaves_workers_to_the_others() {
    let home = Home::new();
    let server = home.start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    create(&server, "/v1/users/anna/endpoints", json!({ "url": url })).await;
    let mut healthy = Webhooks::start().await;
    create(
        &server,
        "/v1/users/ben/endpoints",
        json!({ "url": healthy.url() }),
    )
    .await;
    for n in 0..200 {
        server.notify("anna", json!(n)).await;
    }
    let (_held, _) = soon("the stalled attempt", silent.accept()).await.unwrap();
    let event = server.notify("ben", json!("in time")).await;
    assert_eq!(healthy.next().await.id(), event["id"]);
    assert_eq!(
        server.get("/v1/deliveries?state=delivered&limit=1").await["next"],
        Value::Null
    );
}

/// Nine endpoints of one user that accept connections and never reply, each with a backlog.
#[tokio::test]
async fn regression_stalled_endpoints_of_one_user_do_not_delay_another_user() {
    let home = Home::new();
    let server = home.start().await;
    let stalled = Receiver::start(Behaviour::NeverReply).await.unwrap();
    for n in 0..9 {
        let url = stalled.url(&format!("/{n}"));
        create(&server, "/v1/users/anna/endpoints", json!({ "url": url })).await;
    }
    let mut healthy = Webhooks::start().await;
    let url = healthy.url();
    create(&server, "/v1/users/ben/endpoints", json!({ "url": url })).await;
    for n in 0..20 {
        server.notify("anna", json!(n)).await;
    }
    stalled.request(9).await;
    for n in 0..30 {
        let event = server.notify("ben", json!(n)).await;
        let posted = Instant::now();
        assert_eq!(healthy.next().await.id(), event["id"]);
        // An attempt at a stalled endpoint takes 20 s.
        assert!(posted.elapsed() < Duration::from_secs(10), "number {n}");
    }
}

/// Neither the response nor those to others wait for deliveries.
#[tokio::test]
async fn regression_many_endpoints_cost_nothing_before_the_response() {
    const USERS: u64 = 200;
    let home = Home::new();
    let server = home.start().await;
    let stalled = Receiver::start(Behaviour::NeverReply).await.unwrap();
    let mut last = json!(null);
    for n in 0..100 {
        let url = stalled.url(&format!("/{n}"));
        last = create(&server, "/v1/endpoints", json!({ "url": url })).await;
    }
    let users: Vec<_> = (0..USERS).map(|n| format!("user-{n}")).collect();
    let body = json!({ "user_ids": users, "payload": 1 });
    create(&server, "/v1/notifications", body).await;
    server.notify("anna", json!(1)).await;
    // Both have got their reply, and the deliveries are still being made.
    let path = format!("/v1/endpoints/{}", last["id"].as_str().unwrap());
    let pending = async || {
        server.get(&path).await["health"]["pending"]
            .as_u64()
            .unwrap()
    };
    assert!(pending().await < USERS);
    soon("a delivery for each event", async {
        while pending().await < USERS + 1 {}
    })
    .await;
}
