//! What its endpoint no longer wants.

use serde_json::json;

use super::{Webhooks, create, delivery_in};
use crate::support::Home;

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
    let removed = reqwest::Client::new()
        .delete(server.at(&path))
        .send()
        .await
        .unwrap();
    assert_eq!(removed.status(), 204);
    let delivery = delivery_in(&server, "cancelled").await;
    assert!(delivery["reason"].as_str().unwrap().contains("removed"));
}
