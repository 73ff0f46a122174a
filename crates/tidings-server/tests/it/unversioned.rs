//! The four unversioned routes, as the service that they come from describes them.

use serde_json::{Value, json};

use crate::support::{Home, soon};
use crate::websocket::Socket;

#[tokio::test]
async fn a_notification_is_created_listed_and_read() {
    let home = Home::new();
    let server = home.start().await;
    let body = json!({ "user_id": "user123", "message": "You have a new follower!" });
    let response = server.post("/notifications", &body).await;
    assert_eq!(response.status(), 201);
    let created: Value = response.json().await.unwrap();
    assert_eq!(created["user_id"], "user123");
    assert_eq!(created["message"], "You have a new follower!");
    assert_eq!(created["read"], false);
    assert!(
        created["created_at"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .is_ok()
    );
    server
        .post(
            "/notifications",
            &json!({ "user_id": "user123", "message": "second" }),
        )
        .await;

    let list = server.get("/notifications/user123").await;
    assert_eq!(list[0], created);
    assert_eq!(list[1]["message"], "second");

    let id = created["id"].as_str().unwrap();
    let read = server
        .post(&format!("/notifications/user123/{id}/read"), &Value::Null)
        .await;
    assert_eq!(read.status(), 200);
    assert_eq!(server.get("/notifications/user123").await[0]["read"], true);
    for path in [
        format!("/notifications/nobody/{id}/read"),
        "/notifications/user123/none/read".to_owned(),
    ] {
        assert_eq!(
            server.post(&path, &Value::Null).await.status(),
            404,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_client_may_post_a_whole_notification() {
    let home = Home::new();
    let server = home.start().await;
    let body =
        json!({ "id": "", "user_id": "u", "message": "m", "created_at": null, "read": false });
    assert_eq!(server.post("/notifications", &body).await.status(), 201);
}

#[tokio::test]
async fn a_long_list_is_whole_and_in_order() {
    let home = Home::new();
    let server = home.start().await;
    let notifications: Vec<_> = (0..1000)
        .map(|n| json!({ "user_id": "u", "message": n.to_string() }))
        .collect();
    let batch = json!({ "notifications": notifications });
    assert_eq!(
        server
            .post("/v1/notifications/batch", &batch)
            .await
            .status(),
        201
    );
    let list = server.get("/notifications/u").await;
    let messages: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n["message"].clone())
        .collect();
    assert_eq!(
        messages,
        (0..1000).map(|n| json!(n.to_string())).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn what_waits_for_an_offline_user_is_delivered_first_and_once() {
    let home = Home::new();
    let server = home.start().await;
    for n in 1..=3 {
        server
            .post(
                "/notifications",
                &json!({ "user_id": "u", "message": n.to_string() }),
            )
            .await;
    }
    let mut first = Socket::open(&server, "/ws/u").await;
    for n in 1..=3 {
        let frame = first.next().await;
        assert_eq!(frame["message"], n.to_string());
        assert_eq!(frame["user_id"], "u");
    }
    server
        .post(
            "/notifications",
            &json!({ "user_id": "u", "message": "live" }),
        )
        .await;
    assert_eq!(first.next().await["message"], "live");
    drop(first);

    // Having been sent is remembered over a restart: only what is new waits.
    let (status, _) = server.stop("-TERM").await;
    assert!(status.success());
    let server = home.start().await;
    server
        .post(
            "/notifications",
            &json!({ "user_id": "u", "message": "while away" }),
        )
        .await;
    let mut second = Socket::open(&server, "/ws/u").await;
    assert_eq!(second.next().await["message"], "while away");
}

#[tokio::test]
async fn every_open_connection_of_the_user_gets_a_live_notification() {
    let home = Home::new();
    let server = home.start().await;
    let mut sockets = [
        Socket::open(&server, "/ws/u").await,
        Socket::open(&server, "/ws/u").await,
    ];
    server
        .post(
            "/notifications",
            &json!({ "user_id": "u", "message": "hi" }),
        )
        .await;
    for socket in &mut sockets {
        assert_eq!(
            soon("the notification", socket.next()).await["message"],
            "hi"
        );
    }
}
