//! Who has a stream open.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Home, Server, soon};

async fn is_online(server: &Server, user: &str) -> bool {
    let shown = server.get(&format!("/v1/users/{user}/presence")).await;
    assert_eq!(shown["user_id"], user);
    shown["online"].as_bool().unwrap()
}

async fn until(server: &Server, user: &str, expected: bool) {
    soon("presence changes", async {
        while is_online(server, user).await != expected {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_user_is_online_while_a_stream_of_either_kind_is_open() {
    let home = Home::new();
    let server = home.start().await;
    assert!(!is_online(&server, "anna").await);
    let screen = server.events("anna", "").await;
    until(&server, "anna", true).await;
    let url = server.at("/v1/users/anna/ws").replace("http", "ws");
    let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    drop(screen);
    assert!(is_online(&server, "anna").await);
    drop(socket);
    until(&server, "anna", false).await;
}

#[tokio::test]
async fn many_users_are_asked_for_at_once_and_keep_their_order() {
    let home = Home::new();
    let server = home.start().await;
    let _screen = server.events("ben", "").await;
    until(&server, "ben", true).await;
    let body = json!({"user_ids": ["anna", "ben", "cid", "ben"]});
    let response = server.post("/v1/presence/query", &body).await;
    assert_eq!(response.status(), StatusCode::OK);
    let reply: Value = response.json().await.unwrap();
    let expected = [
        ("anna", false),
        ("ben", true),
        ("cid", false),
        ("ben", true),
    ]
    .map(|(user, online)| json!({"user_id": user, "online": online}));
    assert_eq!(reply, json!({"data": expected}));
}

#[tokio::test]
async fn a_question_that_is_too_long_or_malformed_is_refused_by_its_field() {
    let home = Home::new();
    let server = home.start().await;
    let many: Vec<String> = (0..10_001).map(|n| format!("user-{n}")).collect();
    for body in [
        json!({}),
        json!({"user_ids": "anna"}),
        json!({"user_ids": many}),
    ] {
        let response = server.post("/v1/presence/query", &body).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let reply: Value = response.json().await.unwrap();
        assert_eq!(reply["error"]["field"], "user_ids");
    }
    let body = json!({"user_ids": [], "more": 1});
    let response = server.post("/v1/presence/query", &body).await;
    let reply: Value = response.json().await.unwrap();
    assert_eq!(reply["error"]["field"], "more");
}
