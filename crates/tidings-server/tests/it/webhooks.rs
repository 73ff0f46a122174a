//! Webhooks: signed, filtered, retried over restarts, recorded.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use tidings::signing::{Secret, Verifier};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::support::{Home, Server, soon};

/// A webhook as its receiver saw it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) id: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A receiver on a free port that answers as it is told, and hands on what it got.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    answer: Arc<Mutex<StatusCode>>,
    received: mpsc::Receiver<Received>,
}

type Shared = (Arc<Mutex<StatusCode>>, mpsc::Sender<Received>);

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(StatusCode::NO_CONTENT));
        let (sender, received) = mpsc::channel(20_000);
        let service = Router::new()
            .fallback(Self::receive)
            .with_state((Arc::clone(&answer), sender));
        tokio::spawn(async move { axum::serve(listener, service).await });
        Self {
            address,
            answer,
            received,
        }
    }

    async fn receive(
        State((answer, received)): State<Shared>,
        headers: HeaderMap,
        body: Bytes,
    ) -> StatusCode {
        let id = headers["webhook-id"].to_str().unwrap().to_owned();
        received.send(Received { id, headers, body }).await.unwrap();
        *answer.lock().unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub(crate) fn answer_with(&self, status: u16) {
        *self.answer.lock().unwrap() = StatusCode::from_u16(status).unwrap();
    }

    pub(crate) async fn next(&mut self) -> Received {
        soon("a webhook", self.received.recv()).await.unwrap()
    }
}

async fn create(server: &Server, path: &str, body: Value) -> Value {
    let response = server.post(path, &body).await;
    assert_eq!(response.status(), 201);
    response.json().await.unwrap()
}

/// Waits until a delivery is in this state.
async fn delivery_in(server: &Server, state: &str) -> Value {
    soon(state, async {
        loop {
            let list = server.get(&format!("/v1/deliveries?state={state}")).await;
            if let Some(delivery) = list["data"].get(0) {
                return delivery.clone();
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_accepted_event_is_posted_signed_and_its_attempt_recorded() {
    let home = Home::new();
    let server = home.start().await;
    let mut receiver = Receiver::start().await;
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
    assert_eq!(webhook.id, event["id"]);
    assert_eq!(webhook.headers["content-type"], "application/json");
    let secret = Secret::parse(endpoint["secret"].as_str().unwrap()).unwrap();
    let verifier = Verifier::new(secret);
    verifier
        .verify(&webhook.headers, &webhook.body, Timestamp::now())
        .unwrap();
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

#[tokio::test]
async fn endpoints_hear_of_their_user_and_their_types_only() {
    let home = Home::new();
    let server = home.start().await;
    let (mut all, mut anna, mut news) = (
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
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
    assert_eq!(anna.next().await.id, ids[1]);
    assert_eq!(news.next().await.id, ids[2]);
    let mut heard = [
        all.next().await.id,
        all.next().await.id,
        all.next().await.id,
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
async fn a_failed_delivery_is_tried_again_after_a_restart_under_the_same_id() {
    let home = Home::with(&["--webhook-schedule", "0s,1s,1s,1s,1s"]);
    let server = home.start().await;
    let mut receiver = Receiver::start().await;
    receiver.answer_with(503);
    create(&server, "/v1/endpoints", json!({ "url": receiver.url() })).await;
    let event = server.notify("anna", json!(1)).await;
    assert_eq!(receiver.next().await.id, event["id"]);
    server.kill().await;
    receiver.answer_with(200);
    let server = home.start().await;
    assert_eq!(receiver.next().await.id, event["id"]);
    delivery_in(&server, "delivered").await;
}

#[tokio::test]
async fn regression_a_crash_does_not_bring_a_retry_forward() {
    let home = Home::with(&["--webhook-schedule", "0s,1h"]);
    let server = home.start().await;
    let mut receiver = Receiver::start().await;
    receiver.answer_with(503);
    create(&server, "/v1/endpoints", json!({ "url": receiver.url() })).await;
    for n in 0..50 {
        server.notify("anna", json!(n)).await;
    }
    for _ in 0..50 {
        receiver.next().await;
    }
    // Some attempts are recorded and not yet given back to the queue when the power goes.
    server.kill().await;
    let unrecorded: u32 = rusqlite::Connection::open(home.database())
        .unwrap()
        .query_row(
            "SELECT count(*) FROM delivery WHERE attempts = 0",
            [],
            |row| row.get(0),
        )
        .unwrap();
    receiver.answer_with(200);
    let server = home.start().await;
    // What was not recorded is attempted again; the others wait for their hour.
    for _ in 0..unrecorded {
        receiver.next().await;
    }
    let after = create(
        &server,
        "/v1/notifications",
        json!({ "user_id": "anna", "payload": "x" }),
    )
    .await;
    assert_eq!(
        receiver.next().await.id,
        after["id"],
        "a retry came an hour early"
    );
}

#[tokio::test]
async fn a_stalled_endpoint_leaves_workers_to_the_others() {
    let home = Home::new();
    let server = home.start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    create(&server, "/v1/users/anna/endpoints", json!({ "url": url })).await;
    let mut healthy = Receiver::start().await;
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
    assert_eq!(healthy.next().await.id, event["id"]);
    assert_eq!(
        server.get("/v1/deliveries?state=delivered&limit=1").await["next"],
        Value::Null
    );
}

#[tokio::test]
async fn an_exhausted_delivery_is_kept_as_failed() {
    let home = Home::with(&["--webhook-schedule", "0s,10ms,10ms"]);
    let server = home.start().await;
    let mut receiver = Receiver::start().await;
    receiver.answer_with(500);
    create(&server, "/v1/endpoints", json!({ "url": receiver.url() })).await;
    server.notify("anna", json!(1)).await;
    for _ in 0..3 {
        receiver.next().await;
    }
    let delivery = delivery_in(&server, "failed").await;
    assert_eq!(delivery["attempts"], 3);
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_disabled() {
    let home = Home::new();
    let server = home.start().await;
    let mut receiver = Receiver::start().await;
    receiver.answer_with(410);
    create(&server, "/v1/endpoints", json!({ "url": receiver.url() })).await;
    server.notify("anna", json!(1)).await;
    receiver.next().await;
    delivery_in(&server, "failed").await;
    let list = server.get("/v1/endpoints").await;
    assert_eq!(list["data"][0]["enabled"], false);
    assert!(
        list["data"][0]["disabled_because"]
            .as_str()
            .unwrap()
            .contains("410")
    );
}

#[tokio::test]
async fn a_removed_endpoint_gets_nothing_more() {
    let home = Home::with(&["--webhook-schedule", "0s,50ms,50ms,50ms"]);
    let server = home.start().await;
    let mut receiver = Receiver::start().await;
    receiver.answer_with(500);
    let endpoint = create(&server, "/v1/endpoints", json!({ "url": receiver.url() })).await;
    server.notify("anna", json!(1)).await;
    receiver.next().await;
    let path = format!("/v1/endpoints/{}", endpoint["id"].as_str().unwrap());
    let removed = reqwest::Client::new()
        .delete(server.at(&path))
        .send()
        .await
        .unwrap();
    assert_eq!(removed.status(), 204);
    let delivery = delivery_in(&server, "cancelled").await;
    assert!(delivery["reason"].as_str().unwrap().contains("removed"));
}

#[tokio::test]
async fn a_stop_during_an_attempt_leaves_the_delivery_for_the_next_start() {
    let home = Home::with(&["--shutdown-timeout", "0s"]);
    let server = home.start().await;
    // A receiver that accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    create(&server, "/v1/endpoints", json!({ "url": url })).await;
    server.notify("anna", json!(1)).await;
    let (_held, _) = soon("the attempt", silent.accept()).await.unwrap();
    let (status, text) = server.stop("-TERM").await;
    assert!(status.success(), "{text}");
    assert!(
        text.contains("deliveries waiting for the next start: 1"),
        "{text}"
    );
    let _server = home.start().await;
    soon("the next attempt", silent.accept()).await.unwrap();
}

#[tokio::test]
async fn an_attempt_in_flight_finishes_while_the_server_stops() {
    let home = Home::new();
    let server = home.start().await;
    let slow = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", slow.local_addr().unwrap());
    create(&server, "/v1/endpoints", json!({ "url": url })).await;
    server.notify("anna", json!(1)).await;
    let mut events = server.events("anna", "").await;
    events.until("tidings.caught_up").await;
    let (mut connection, _) = soon("the attempt", slow.accept()).await.unwrap();
    let stopped = tokio::spawn(server.stop("-TERM"));
    // The farewell says that the stop has begun; only now does the receiver answer.
    events.until("tidings.bye").await;
    let mut request = vec![0; 65536];
    soon("the request", connection.read(&mut request))
        .await
        .unwrap();
    connection
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    let (status, text) = stopped.await.unwrap();
    assert!(status.success(), "{text}");
    assert!(text.contains("webhook attempts given up: 0"), "{text}");
    assert!(
        text.contains("deliveries waiting for the next start: 0"),
        "{text}"
    );
}
