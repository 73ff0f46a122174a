//! A command whose connection breaks after the server has stored what it sent.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Home, Server, binary, said_by};

/// What a proxy does with the first reply of the server.
#[derive(Clone, Copy)]
enum First {
    /// Closes the connection of the client.
    Dropped,
    /// Replies in its place.
    BadGateway,
    /// As if dropped, and so are all later ones.
    AllDropped,
}

/// Reads a request or a reply whose body, if it has one, has a length.
pub(crate) async fn message(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return bytes;
            }
        }
        assert!(socket.read_buf(&mut bytes).await.unwrap() > 0);
    }
}

/// Passes each request of a connection of its own to the server, and the reply back, except for the first.
async fn proxy(server: &Server, first: First) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let to = server.url.strip_prefix("http://").unwrap().to_owned();
    tokio::spawn(async move {
        for number in 0.. {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(&to).await.unwrap();
            let request = message(&mut client).await;
            server.write_all(&request).await.unwrap();
            let reply = message(&mut server).await;
            let lost =
                b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            match first {
                First::Dropped if number == 0 => {}
                First::AllDropped => {}
                First::BadGateway if number == 0 => client.write_all(lost).await.unwrap(),
                _ => client.write_all(&reply).await.unwrap(),
            }
        }
    });
    url
}

#[tokio::test]
async fn what_is_made_is_made_once_and_reported_although_the_first_reply_is_lost() {
    let home = Home::new();
    let server = home.start().await;
    for (number, first) in [First::Dropped, First::BadGateway].into_iter().enumerate() {
        let url = proxy(&server, first).await;
        let arguments = ["endpoint", "create", "http://127.0.0.1:9/", "--url", &url];
        let (ok, secret, said) = said_by(binary().args(arguments)).await;
        assert!(ok && secret.starts_with("whsec_"), "{said}");
        let endpoints = server.get("/v1/endpoints").await;
        assert_eq!(endpoints["data"].as_array().unwrap().len(), number + 1);

        let url = proxy(&server, first).await;
        let (ok, sent, said) = said_by(binary().args(["send", "anna", "1", "--url", &url])).await;
        assert!(ok && sent.contains("\"payload\":1"), "{said}");
        let inbox = server.get("/v1/users/anna/notifications").await;
        assert_eq!(inbox["data"].as_array().unwrap().len(), number + 1);
    }
}

#[tokio::test]
async fn a_change_is_made_once_and_reported_although_the_first_reply_is_lost() {
    let home = Home::new();
    let server = home.start().await;
    for first in [First::Dropped, First::BadGateway] {
        let run = async |arguments: &[&str]| {
            let url = proxy(&server, first).await;
            let command = said_by(binary().args(arguments).args(["--url", &url])).await;
            assert!(command.0, "{arguments:?}: {}", command.2);
            command
        };
        let (_, _, created) = run(&["endpoint", "create", "http://127.0.0.1:9/"]).await;
        let id = created.split(' ').nth(1).unwrap();
        let of_endpoint = format!("/v1/deliveries?endpoint_id={id}");
        let (_, delivery, _) = run(&["endpoint", "test", id]).await;
        let deliveries = server.get(&of_endpoint).await;
        assert_eq!(deliveries["data"].as_array().unwrap().len(), 1);
        assert_eq!(deliveries["data"][0]["id"], delivery.trim());
        run(&["delivery", "retry", delivery.trim()]).await;
        let (_, secret, _) = run(&["endpoint", "rotate", id]).await;
        assert!(secret.starts_with("whsec_"), "{secret}");
        run(&["endpoint", "replay", id, "--since", "2026-01-01T00:00:00Z"]).await;
        let (_, changed, _) = run(&["endpoint", "disable", id]).await;
        assert!(changed.contains("disabled"), "{changed}");
        let (_, _, removed) = run(&["endpoint", "delete", id]).await;
        assert_eq!(removed, format!("removed {id}\n"));

        let (_, key, created) = run(&["key", "create", "shop", "--scope", "read"]).await;
        assert!(key.starts_with("tk_"), "{key}");
        let keys = server.get("/v1/keys").await;
        assert_eq!(keys["data"].as_array().unwrap().len(), 1, "{keys}");
        assert_eq!(keys["data"][0]["prefix"], key[..7]);
        let id = created.split(' ').nth(1).unwrap();
        run(&["key", "revoke", id]).await;
    }
}

#[tokio::test]
async fn a_notification_whose_replies_are_all_lost_can_be_sent_again_without_a_second_one() {
    let home = Home::new();
    let server = home.start().await;
    let send = async |user: &str, url: &str, more: &[&str]| {
        let arguments = ["send", user, "1", "--url", url];
        said_by(binary().args(arguments).args(more)).await
    };
    for (user, more) in [
        ("anna", &[][..]),
        ("ben", &["--idempotency-key", "order-17"]),
    ] {
        let (ok, _, said) = send(user, &proxy(&server, First::AllDropped).await, more).await;
        let (why, key) = said.trim_end().split_once(" --idempotency-key ").unwrap();
        let says = "lost the connection to the server; the notification may have been accepted: sent again with";
        assert!(!ok && why.ends_with(says), "{said}");
        let key = key.strip_suffix(", there is no second one").unwrap();
        assert!(more.is_empty() || key == "order-17", "{said}");
        let (ok, shown, said) = send(user, &server.url, &["--idempotency-key", key]).await;
        assert!(ok, "{said}");
        let inbox = server.get(&format!("/v1/users/{user}/notifications")).await;
        assert_eq!(inbox["data"].as_array().unwrap().len(), 1);
        let notification: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(notification["id"], inbox["data"][0]["id"]);
    }
    let other = send("anna", &server.url, &["--idempotency-key", "order-17"]).await;
    assert!(!other.0 && other.2.contains("422"), "{}", other.2);
}

/// What came meanwhile would be marked as read, too.
#[tokio::test]
async fn to_mark_everything_as_read_is_not_repeated_and_reported_as_possible() {
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!(1)).await;
    for first in [First::Dropped, First::BadGateway] {
        let url = proxy(&server, first).await;
        let arguments = ["inbox", "anna", "--read-all", "--url", &url];
        let (ok, _, said) = said_by(binary().args(arguments)).await;
        assert!(
            !ok && said.ends_with("; the change may have been made\n"),
            "{said}"
        );
    }
}
