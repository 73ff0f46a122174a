//! What a stop of the server leaves.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::create;
use crate::support::{Home, soon};

#[tokio::test]
async fn a_stop_during_an_attempt_leaves_the_delivery_for_the_next_start() {
    let home = Home::with(&["--shutdown-timeout", "0s"]);
    let server = home.start().await;
    // A receiver that accepts connections and never replies.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    create(&server, "/v1/endpoints", json!({ "url": url })).await;
    server.notify("anna", json!(1)).await;
    let (_held, _) = soon("the attempt", silent.accept()).await.unwrap();
    let (status, text) = server.stop("-TERM").await;
    assert!(status.success(), "{text}");
    assert!(text.contains("pending deliveries: 1"), "{text}");
    let _server = home.start().await;
    soon("the next attempt", silent.accept()).await.unwrap();
}

#[tokio::test]
async fn an_attempt_in_flight_finishes_while_the_server_stops() {
    let home = Home::new();
    let server = home.start().await;
    let slow = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", slow.local_addr().unwrap());
    create(&server, "/v1/endpoints", json!({ "url": url })).await;
    server.notify("anna", json!(1)).await;
    let mut events = server.events("anna", "").await;
    events.until("tidings.caught_up").await;
    let (mut connection, _) = soon("the attempt", slow.accept()).await.unwrap();
    let stopped = tokio::spawn(server.stop("-TERM"));
    // The farewell says that the stop has begun; only now does the receiver reply.
    events.until("tidings.bye").await;
    let mut request = vec![0; 65536];
    soon("the request", connection.read(&mut request))
        .await
        .unwrap();
    connection
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    let (status, text) = stopped.await.unwrap();
    assert!(status.success(), "{text}");
    assert!(text.contains("webhook attempts abandoned: 0"), "{text}");
    assert!(
        text.contains("outcomes of attempts not stored: 0"),
        "{text}"
    );
    assert!(text.contains("pending deliveries: 0"), "{text}");
}
