//! Clients that read slowly: what they cannot outlast.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api_keys;
use crate::raw::{address, connect};
use crate::support::{Events, Home, Server, http, soon};
use crate::tokens::{KEY, SECRET, token};

const ARGUMENTS: [&str; 6] = [
    "--api-key",
    KEY,
    "--jwt-secret",
    SECRET,
    "--max-body-bytes=16777216",
    "--max-streams-per-user=1",
];

async fn call(server: &Server, method: Method, path: &str, body: Value) -> Value {
    let request = http().request(method, server.at(path)).bearer_auth(KEY);
    let response = request.json(&body).send().await.unwrap();
    let response = response.error_for_status().unwrap();
    let text = response.text().await.unwrap();
    serde_json::from_str(&text).unwrap_or_default()
}

async fn is_online(server: &Server) -> bool {
    let presence = http().get(server.at("/v1/users/anna/presence"));
    let presence = presence.bearer_auth(KEY).send().await.unwrap();
    presence.json::<Value>().await.unwrap()["online"] == true
}

/// Opens a stream of anna, to whom an event was sent that no buffer has room for, and reads its beginning.
async fn open(server: &Server, kind: &str, credential: &str) -> TcpStream {
    let mut stream = connect(server).await;
    let upgrade = if kind == "ws" {
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    } else {
        ""
    };
    let head = format!(
        "GET /v1/users/anna/{kind}?since=start HTTP/1.1\r\nHost: {}\r\n\
         Authorization: Bearer {credential}\r\n{upgrade}\r\n",
        address(server)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains("xxx") {
        let more = soon("the large event", stream.read_buf(&mut read)).await;
        assert!(more.unwrap() > 0, "{}", String::from_utf8_lossy(&read));
    }
    stream
}

/// Reads a little at a time, as long as the user is online.
async fn read_until_offline(server: &Server, stream: &mut TcpStream) {
    soon("the end of the stream", async {
        while is_online(server).await {
            let _ended = stream.read(&mut [0; 64]).await;
        }
    })
    .await;
}

/// Another stream has the place of the one that has ended.
async fn assert_place_is_free(server: &Server) {
    let events = http().get(server.at("/v1/users/anna/events"));
    let events = events.bearer_auth(KEY).send().await.unwrap();
    let mut events = Events::of(events);
    assert_eq!(events.next().await.name, "tidings.hello");
    drop(events);
    let gone = async { while is_online(server).await {} };
    soon("the end of the other stream", gone).await;
}

async fn start() -> (Home, Server) {
    let home = Home::with(&ARGUMENTS);
    let server = home.start().await;
    let large = json!({ "user_id": "anna", "payload": "x".repeat(12_000_000) });
    call(&server, Method::POST, "/v1/notifications", large).await;
    (home, server)
}

#[tokio::test]
async fn regression_a_slow_reader_does_not_outlast_the_revocation_of_its_key() {
    let (_home, server) = start().await;
    for kind in ["events", "ws"] {
        let key = api_keys::create(&server, &["read"]).await;
        let mut stream = open(&server, kind, key["key"].as_str().unwrap()).await;
        assert!(is_online(&server).await);
        let path = format!("/v1/keys/{}", key["id"].as_str().unwrap());
        call(&server, Method::DELETE, &path, json!({})).await;
        read_until_offline(&server, &mut stream).await;
        assert_place_is_free(&server).await;
    }
}

#[tokio::test]
async fn regression_a_slow_reader_does_not_outlast_the_expiry_of_its_token() {
    let (_home, server) = start().await;
    for kind in ["events", "ws"] {
        let mut stream = open(&server, kind, &token("anna", 10)).await;
        assert!(is_online(&server).await);
        read_until_offline(&server, &mut stream).await;
        assert_place_is_free(&server).await;
    }
}

/// Asks for the list of anna, and gives the status, which is all that is read of the response.
async fn ask_for_list(server: &Server, credential: &str) -> (u16, TcpStream) {
    let mut stream = connect(server).await;
    let head = format!(
        "GET /v1/users/anna/notifications HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {credential}\r\n\r\n",
        address(server)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut line = [0; 12];
    let read = stream.read_exact(&mut line);
    soon("a status", read).await.unwrap();
    let line = std::str::from_utf8(&line).unwrap();
    (line["HTTP/1.1 ".len()..].parse().unwrap(), stream)
}

#[tokio::test]
async fn regression_the_responses_that_a_user_does_not_read_are_bounded_in_sum() {
    let (_home, server) = start().await;
    let token = token("anna", 600);
    let (status, mut unread) = ask_for_list(&server, &token).await;
    assert_eq!(status, 200);
    let refused = http().get(server.at("/v1/users/anna/notifications"));
    let refused = refused.bearer_auth(&token).send().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(
        refused.json::<Value>().await.unwrap()["error"]["code"],
        "busy"
    );
    let (status, _of_key) = ask_for_list(&server, KEY).await;
    assert_eq!(status, 200);

    let mut buffer = vec![0; 1 << 20];
    let mut read = 0;
    while read < 12_000_000 {
        let more = unread.read(&mut buffer);
        read += soon("the response", more).await.unwrap();
    }
    let (status, unread) = ask_for_list(&server, &token).await;
    assert_eq!(status, 200);
    drop(unread);
    let free = async { while ask_for_list(&server, &token).await.0 != 200 {} };
    soon("the room of the lost connection", free).await;
}
