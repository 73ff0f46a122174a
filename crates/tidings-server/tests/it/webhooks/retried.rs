//! What failed once is attempted again, when it is due.

use serde_json::json;

use super::{Webhooks, create, delivery_in};
use crate::support::Home;

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
    receiver.reply_with(200);
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
        receiver.next().await.id(),
        after["id"],
        "a retry came an hour early"
    );
}
