//! What is not attempted again.

use serde_json::json;

use super::{Webhooks, create, delivery_in};
use crate::support::{Home, soon};

#[tokio::test]
async fn an_exhausted_delivery_is_kept_as_failed() {
    let home = Home::with(&["--webhook-schedule", "0s,10ms,10ms"]);
    let server = home.start().await;
    let mut receiver = Webhooks::start().await;
    receiver.reply_with(500);
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
    let mut receiver = Webhooks::start().await;
    receiver.reply_with(410);
    create(&server, "/v1/endpoints", json!({ "url": receiver.url() })).await;
    server.notify("anna", json!(1)).await;
    receiver.next().await;
    delivery_in(&server, "failed").await;
    // Disabling it is a transaction of its own, after the one of the outcome.
    let because = soon("the end of the endpoint", async {
        loop {
            let list = server.get("/v1/endpoints").await;
            let endpoint = &list["data"][0];
            if endpoint["enabled"] == false {
                break endpoint["disabled_because"].clone();
            }
        }
    });
    assert!(because.await.as_str().unwrap().contains("410"));
}
