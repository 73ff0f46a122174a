//! What happens when the database cannot be used.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Home, soon};

#[tokio::test]
async fn a_locked_database_is_said_to_be_temporary_and_nothing_is_stored() {
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!(1)).await;
    let other = rusqlite::Connection::open(home.database()).unwrap();
    other.busy_timeout(Duration::from_secs(10)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for (path, body) in [
        (
            "/v1/notifications",
            json!({ "user_id": "anna", "payload": 2 }),
        ),
        (
            "/notifications",
            json!({ "user_id": "anna", "message": "2" }),
        ),
        ("/v1/users/anna/notifications/read-all", json!({})),
    ] {
        let refused = soon("an answer", server.post(path, &body)).await;
        assert_eq!(refused.status(), 503, "{path}");
        assert!(refused.headers().contains_key("retry-after"), "{path}");
        let error: Value = refused.json().await.unwrap();
        assert_eq!(error["error"]["code"], "storage_unavailable", "{path}");
    }
    // What is there can still be read.
    let page = server.get("/v1/users/anna/notifications").await;
    assert_eq!(
        (&page["unread"], page["data"].as_array().unwrap().len()),
        (&json!(1), 1)
    );
    other.execute_batch("ROLLBACK").unwrap();
    server.notify("anna", json!(3)).await;
    let page = server.get("/v1/users/anna/notifications").await;
    let payloads: Vec<_> = page["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["payload"])
        .collect();
    assert_eq!(payloads, [3, 1]);
}
