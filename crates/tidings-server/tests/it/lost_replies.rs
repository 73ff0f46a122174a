//! A command whose connection breaks after the server has stored what it sent.

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
async fn a_change_whose_reply_is_lost_is_reported_as_possible_and_not_repeated() {
    let home = Home::new();
    let server = home.start().await;
    let (_, _, created) = said_by(
        binary()
            .args(["endpoint", "create", "http://127.0.0.1:9/"])
            .args(["--url", &server.url]),
    )
    .await;
    let id = created.split(' ').nth(1).unwrap();
    for first in [First::Dropped, First::BadGateway] {
        let url = proxy(&server, first).await;
        let arguments = ["endpoint", "test", id, "--url", &url];
        let (ok, _, said) = said_by(binary().args(arguments)).await;
        assert!(
            !ok && said.ends_with("; the change may have been made\n"),
            "{said}"
        );
    }
    let deliveries = server.get("/v1/deliveries").await;
    assert_eq!(deliveries["data"].as_array().unwrap().len(), 2);
}
