//! What its endpoint no longer wants.

use http::StatusCode;
use serde_json::json;
use tidings_test_support::{Gate, Receiver, Reply};

use super::{Webhooks, create, delivery_in};
use crate::support::{Home, http, soon};

#[tokio::test]
async fn a_removed_endpoint_gets_nothing_more() {
    let home = Home::with(&["--webhook-schedule", "0s,50ms,50ms,50ms"]);
    let server = home.start().await;
    let mut receiver = Webhooks::start().await;
    receiver.reply_with(500);
    let endpoint = create(&server, "/v1/endpoints", json!({ "url": receiver.url() })).await;
    server.notify("anna", json!(1)).await;
    receiver.next().await;
    let path = format!("/v1/endpoints/{}", endpoint["id"].as_str().unwrap());
    let removed = http().delete(server.at(&path)).send().await.unwrap();
    assert_eq!(removed.status(), 204);
    let delivery = delivery_in(&server, "cancelled").await;
    assert!(delivery["reason"].as_str().unwrap().contains("removed"));
}

#[tokio::test]
async fn regression_an_attempt_in_flight_does_not_undo_the_cancelling() {
    let home = Home::with(&["--webhook-schedule", "0s"]);
    let server = home.start().await;
    let gate = Gate::new();
    let reply = Reply::new(StatusCode::INTERNAL_SERVER_ERROR).after(gate.clone());
    let receiver = Receiver::start(reply).await.unwrap();
    let body = json!({ "url": receiver.url("/hook") });
    let endpoint = create(&server, "/v1/endpoints", body).await;
    server.notify("anna", json!(1)).await;
    receiver.request(1).await;
    let path = format!("/v1/endpoints/{}", endpoint["id"].as_str().unwrap());
    let removed = http().delete(server.at(&path)).send();
    assert_eq!(removed.await.unwrap().status(), 204);
    let delivery = delivery_in(&server, "cancelled").await;
    gate.open();
    let attempts = format!(
        "/v1/deliveries/{}/attempts",
        delivery["id"].as_str().unwrap()
    );
    soon("the record of the attempt", async {
        while server.get(&attempts).await["data"] == json!([]) {}
    })
    .await;
    let delivery = delivery_in(&server, "cancelled").await;
    assert!(delivery["reason"].as_str().unwrap().contains("removed"));
    assert!(delivery["next_attempt_at"].is_null());
}

#[tokio::test]
async fn regression_an_endpoint_that_cannot_be_read_affects_nothing_else() {
    let home = Home::new();
    let server = home.start().await;
    let mut receiver = Webhooks::start().await;
    for _ in 0..2 {
        create(&server, "/v1/endpoints", json!({ "url": receiver.url() })).await;
    }
    server.stop("-TERM").await;
    let connection = rusqlite::Connection::open(home.database()).unwrap();
    let damage = "UPDATE webhook_endpoint SET secrets = 'unreadable'
        WHERE endpoint = (SELECT min(endpoint) FROM webhook_endpoint)";
    assert_eq!(connection.execute(damage, []).unwrap(), 1);
    drop(connection);
    let server = home.start().await;
    let event = server.notify("anna", json!(1)).await;
    assert_eq!(receiver.next().await.id(), event["id"]);
    let failed = delivery_in(&server, "failed").await;
    assert!(failed["reason"].is_string(), "{failed}");
    delivery_in(&server, "delivered").await;
}
