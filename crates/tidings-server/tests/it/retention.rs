//! What is old is forgotten. Time is made to pass by making rows older.

use rusqlite::Connection;
use serde_json::json;
use tidings_test_support::{Receiver, Reply};

use crate::support::{Home, Server, http, payloads, soon};

async fn send_once(server: &Server) -> String {
    let request = http().post(server.at("/v1/notifications"));
    let request = request.header("Idempotency-Key", "order-17");
    let body = json!({ "user_id": "anna", "payload": 1 });
    let response = request.json(&body).send().await.unwrap();
    assert_eq!(response.status(), 201);
    response.text().await.unwrap()
}

fn make_keys_older(home: &Home, hours: i64) {
    let connection = Connection::open(home.database()).unwrap();
    let older = "UPDATE idempotency SET accepted_at = accepted_at - ?1";
    let changed = connection.execute(older, [hours * 3_600_000_000]).unwrap();
    assert_eq!(changed, 1);
}

fn keys(home: &Home) -> i64 {
    let connection = Connection::open(home.database()).unwrap();
    let count = "SELECT count(*) FROM idempotency";
    connection.query_row(count, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn an_idempotency_key_is_kept_for_a_day_and_then_cleaned() {
    let home = Home::new();
    let server = home.start().await;
    let first = send_once(&server).await;
    make_keys_older(&home, 23);
    assert_eq!(send_once(&server).await, first);
    make_keys_older(&home, 1);
    let second = send_once(&server).await;
    assert_ne!(second, first);
    assert_eq!(send_once(&server).await, second);

    make_keys_older(&home, 25);
    server.stop("-TERM").await;
    // The server cleans when it starts, and every few minutes.
    let _server = home.start().await;
    soon("the cleaning", async {
        while keys(&home) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Its own timestamp does not count: what is accepted late is kept as long as any other.
#[tokio::test]
async fn a_notification_is_deleted_once_it_was_accepted_longer_ago_than_the_retention() {
    let home = Home::with(&["--retention", "2d"]);
    let server = home.start().await;
    let long_ago = "2001-01-01T00:00:00Z";
    for n in 0..2 {
        let body = json!({ "user_id": "anna", "payload": n, "timestamp": long_ago });
        let response = server.post("/v1/notifications", &body).await;
        assert_eq!(response.status(), 201);
    }
    server.stop("-TERM").await;
    let connection = Connection::open(home.database()).unwrap();
    let older = "UPDATE notify_event SET stored_at = stored_at - ?1
        WHERE key = (SELECT min(key) FROM notify_event)";
    let three_days: i64 = 3 * 24 * 3600 * 1_000_000;
    assert_eq!(connection.execute(older, [three_days]).unwrap(), 1);
    drop(connection);

    let server = home.start().await;
    soon("the cleaning", async {
        loop {
            let page = server.get("/v1/users/anna/notifications").await;
            let left = payloads(page["data"].as_array().unwrap());
            if left.len() < 2 {
                break assert_eq!(left, [1]);
            }
        }
    })
    .await;
}

/// An event that became deliveries is still in the stream behind them, with its payload.
#[tokio::test]
async fn regression_what_webhooks_were_made_of_is_deleted_after_the_retention() {
    let receiver = Receiver::start(Reply::ok()).await.unwrap();
    let home = Home::with(&["--retention", "2d"]);
    let server = home.start().await;
    let endpoint = json!({ "url": receiver.url("/") });
    assert_eq!(server.post("/v1/endpoints", &endpoint).await.status(), 201);
    server.notify("anna", json!("secret")).await;
    soon("the webhook", receiver.request(1)).await;
    server.stop("-TERM").await;
    let connection = Connection::open(home.database()).unwrap();
    let count = || -> i64 {
        let count = "SELECT count(*) FROM stream_message";
        connection.query_row(count, [], |row| row.get(0)).unwrap()
    };
    let make_older = |hours: i64| {
        let older = "UPDATE stream_message SET created_at = created_at - ?1";
        connection.execute(older, [hours * 3_600_000]).unwrap()
    };
    assert_eq!(make_older(24), 1);
    home.start().await.stop("-TERM").await;
    assert_eq!(count(), 1);

    make_older(25);
    let _server = home.start().await;
    assert_eq!(count(), 0);
}
