use axum::http::{HeaderMap, Uri, header};
use reqwest::Client;
use serde_json::{Value, json};
use tidings_test_support::soon;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// Begins a request that a stop waits for, up to where its body is waited for.
async fn unfinished_request(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST /v1/notifications HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\
                Expect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = [0; 12];
    let read = stream.read_exact(&mut response);
    soon("its body is waited for", read).await.unwrap();
    assert_eq!(&response, b"HTTP/1.1 100");
    stream
}

#[tokio::test]
async fn regression_an_instance_that_stops_learns_that_a_key_was_revoked_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("tidings.db");
    let config = Config::from_flags([
        "--dev".to_owned(),
        "--listen=127.0.0.1:0".to_owned(),
        format!("--database=sqlite:{}", database.display()),
        "--shutdown-timeout=60s".to_owned(),
    ]);
    let server = Server::start(config.unwrap()).await.unwrap();
    let app = server.app();
    let client = Client::builder().tls_certs_only([]).build().unwrap();
    let keys = client.post(format!("http://{}/v1/keys", server.address()));
    let request = keys.json(&json!({ "name": "test", "scopes": ["read"] }));
    let created: Value = request.send().await.unwrap().json().await.unwrap();

    let mut headers = HeaderMap::new();
    let value = format!("Bearer {}", created["key"].as_str().unwrap());
    headers.insert(header::AUTHORIZATION, value.parse().unwrap());
    let sent = app.access.credential(&headers, &Uri::from_static("/"));
    let caller = app.access.identify(sent.unwrap()).await.unwrap();
    let validity = caller.validity();

    let mut unfinished = unfinished_request(server.address()).await;
    let stopped = tokio::spawn(server.shutdown());
    app.stopping.cancelled().await;
    let id = created["id"].as_str().unwrap();
    assert!(app.storage.api_keys.remove(id).await.unwrap());
    soon("the end of the permission", validity.over()).await;
    assert!(!stopped.is_finished());
    unfinished.write_all(b"{}").await.unwrap();
    soon("the end of the server", stopped).await.unwrap();
}
