//! What happens when the database cannot be used: callers get 503 with `Retry-After`, and no outcome is
//! lost.

use std::time::Duration;

use http::StatusCode;
use rusqlite::Connection;
use serde_json::{Value, json};
use tidings_test_support::{Gate, Receiver, Reply};

use crate::support::{Home, Server, http, said_by, soon};

/// Takes the lock for writing, as another process could.
fn lock(home: &Home) -> Connection {
    let connection = Connection::open(home.database()).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}

#[tokio::test]
async fn a_locked_database_is_said_to_be_temporary_and_nothing_is_stored() {
    let home = Home::with(&["--log", "info"]);
    let server = home.start().await;
    server.notify("anna", json!(1)).await;
    let locked = lock(&home);
    let requests = [
        (
            "/v1/notifications",
            json!({ "user_id": "anna", "payload": 2 }),
        ),
        (
            "/notifications",
            json!({ "user_id": "anna", "message": "2" }),
        ),
        ("/v1/users/anna/notifications/read-all", json!({})),
        ("/v1/endpoints", json!({ "url": "http://127.0.0.1:9/" })),
    ];
    let refusals = requests.map(async |(path, body)| {
        let refused = soon("a reply", server.post(path, &body)).await;
        assert_eq!(refused.status(), 503, "{path}");
        assert!(refused.headers().contains_key("retry-after"), "{path}");
        let error: Value = refused.json().await.unwrap();
        assert_eq!(error["error"]["code"], "storage_unavailable", "{path}");
    });
    // At once, because each waits for the lock for five seconds.
    futures_util::future::join_all(refusals).await;
    // What is there can still be read.
    let page = server.get("/v1/users/anna/notifications").await;
    assert_eq!(
        (&page["unread"], page["data"].as_array().unwrap().len()),
        (&json!(1), 1)
    );
    let text = http().get(server.at("/metrics")).send().await.unwrap();
    let text = text.text().await.unwrap();
    assert!(text.contains("\ntidings_server_database_failed_total 4\n"));
    drop(locked);
    server.notify("anna", json!(3)).await;
    let page = server.get("/v1/users/anna/notifications").await;
    let payloads: Vec<_> = page["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["payload"])
        .collect();
    assert_eq!(payloads, [3, 1]);
    let (_, log) = server.stop("-TERM").await;
    for line in ["the database does not work", "the database works again"] {
        assert_eq!(log.matches(line).count(), 1, "{line} in {log}");
    }
}

#[tokio::test]
async fn readiness_follows_the_database() {
    let home = Home::new();
    let server = home.start().await;
    let locked = lock(&home);
    let ready = server.ready().await;
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.headers().contains_key("retry-after"));
    let error: Value = ready.json().await.unwrap();
    assert_eq!(error["error"]["code"], "storage_unavailable");
    // The request had nothing to store.
    let says = "the database of the server is not available";
    assert_eq!(error["error"]["message"], says);
    drop(locked);
    server.until_ready_is(200).await;
}

#[tokio::test]
async fn an_outcome_is_kept_while_the_database_is_locked() {
    let home = Home::with(&["--webhook-schedule", "0s,1s,1s,1s,1s"]);
    let server = home.start().await;
    let gate = Gate::new();
    let receiver = Receiver::start(Reply::new(StatusCode::NO_CONTENT).after(gate.clone()));
    let receiver = receiver.await.unwrap();
    let endpoint = json!({ "url": receiver.url("/hook") });
    assert_eq!(server.post("/v1/endpoints", &endpoint).await.status(), 201);
    server.notify("anna", json!(1)).await;
    receiver.request(1).await;
    let locked = lock(&home);
    gate.open();
    // Until a write has failed because of the lock, the outcome may still be on its way.
    let body = json!({ "user_id": "anna", "payload": 2 });
    let response = server.post("/v1/notifications", &body).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(locked);
    let delivered = soon("the outcome", async {
        loop {
            let list = server.get("/v1/deliveries?state=delivered").await;
            if let Some(delivery) = list["data"].get(0) {
                return delivery.clone();
            }
        }
    })
    .await;
    assert_eq!(delivered["attempts"], 1);
    assert_eq!(receiver.requests().len(), 1, "the webhook was sent again");
}

/// Stores 15 MB with one request.
async fn fill(server: &Server) {
    let users: Vec<_> = (0..15).map(|n| format!("u{n}")).collect();
    let body = json!({ "user_ids": users, "payload": "x".repeat(1_000_000) });
    assert_eq!(server.post("/v1/notifications", &body).await.status(), 201);
}

#[tokio::test]
async fn a_log_that_a_reader_of_another_process_keeps_long_is_warned_about_once_with_its_size() {
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!(1)).await;
    let reader = Connection::open(home.database()).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let events = "SELECT count(*) FROM notify_event";
    let count = |it: &Connection| it.query_row(events, [], |row| row.get::<_, i64>(0));
    assert_eq!(count(&reader).unwrap(), 1);
    for _ in 0..11 {
        fill(&server).await;
    }
    assert_eq!(count(&reader).unwrap(), 1);
    drop(reader);
    let (_, log) = server.stop("-TERM").await;
    let warnings: Vec<_> = log
        .lines()
        .filter(|line| line.contains("log grows"))
        .collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(
        warnings[0].contains("bytes=13") || warnings[0].contains("bytes=14"),
        "{log}"
    );
}

/// In place of the attempts, rows without end.
const ENDLESS_ATTEMPTS: &str = "
    ALTER TABLE webhook_attempt RENAME TO hidden;
    CREATE VIEW webhook_attempt AS
    WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)
    SELECT -x AS delivery, x AS number, 0 AS started_at, 0 AS duration, NULL AS status,
        NULL AS error, '' AS response FROM n";

#[tokio::test]
async fn a_list_that_takes_too_long_is_ended_and_delays_no_other_request() {
    let home = Home::new();
    let server = home.start().await;
    let receiver = Receiver::start(Reply::ok()).await.unwrap();
    let endpoint = json!({ "url": receiver.url("/hook") });
    assert_eq!(server.post("/v1/endpoints", &endpoint).await.status(), 201);
    server.notify("anna", json!(1)).await;
    let delivery = soon("the delivery", async {
        loop {
            let list = server.get("/v1/deliveries?state=delivered").await;
            if let Some(delivery) = list["data"].get(0) {
                return delivery["id"].as_str().unwrap().to_owned();
            }
        }
    })
    .await;
    let other = Connection::open(home.database()).unwrap();
    other.execute_batch(ENDLESS_ATTEMPTS).unwrap();

    let path = server.at(&format!("/v1/deliveries/{delivery}/attempts"));
    let lists = futures_util::future::join_all((0..6).map(|_| http().get(path.clone()).send()));
    let lists = tokio::spawn(lists);
    let mut meanwhile = 0;
    while !lists.is_finished() {
        server.notify("anna", json!(meanwhile)).await;
        let mut events = server.events("anna", "?since=start").await;
        events.until("tidings.caught_up").await;
        meanwhile += 1;
    }
    assert!(meanwhile > 5, "{meanwhile} requests while lists ran");
    for refused in lists.await.unwrap() {
        let refused = refused.unwrap();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key("retry-after"));
        let error: Value = refused.json().await.unwrap();
        assert_eq!(error["error"]["code"], "too_slow");
    }
}

#[tokio::test]
async fn a_file_that_is_gone_is_noticed_and_posts_are_refused() {
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!(1)).await;
    std::fs::remove_file(home.database()).unwrap();
    let body = json!({ "user_id": "anna", "payload": 2 });
    let response = server.post("/v1/notifications", &body).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let ready = server.ready().await;
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_database_that_others_can_read_is_reported_at_the_start() {
    use std::os::unix::fs::PermissionsExt;

    let home = Home::new();
    let (_, text) = home.start().await.stop("-TERM").await;
    assert!(!text.contains("chmod"), "{text}");
    let all = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(home.database(), all).unwrap();
    let (_, text) = home.start().await.stop("-TERM").await;
    assert!(text.contains("chmod 600") && text.contains("644"), "{text}");
}

#[tokio::test]
async fn the_database_of_another_program_is_refused() {
    let home = Home::new();
    let other = Connection::open(home.database()).unwrap();
    other
        .execute_batch("CREATE TABLE song (title TEXT)")
        .unwrap();
    drop(other);
    let (started, _, text) = said_by(&mut home.command()).await;
    assert!(!started);
    assert!(text.contains("another program"), "{text}");
}
