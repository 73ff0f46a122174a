//! A tunnel to a receiver with TLS.

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::*;

#[tokio::test]
async fn a_secured_request_goes_through_a_tunnel() {
    let receiver = Receiver::builder(Reply::ok())
        .with_tls(tidings_test_support::Tls::Valid)
        .start()
        .await
        .unwrap();
    let (proxy, mut heads, _task) = tunnel_to(receiver.address()).await;
    let sender = Sender::builder()
        .proxy(proxy)
        .root_certificates(receiver.authority().unwrap().pem())
        .build()
        .unwrap();
    let attempt = attempt_by(&sender, Endpoint::builder(receiver.url("/hook"))).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered, "{attempt:?}");
    let head = heads.recv().await.unwrap();
    let authority = receiver.address().to_string();
    assert!(head.starts_with(&format!("CONNECT {authority} ")), "{head}");
    assert!(head.contains("Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n"));
    let request = receiver.request(1).await;
    assert_eq!(request.head.target, "/hook");
    assert_eq!(request.header("proxy-authorization"), None);
}

/// Reads the head of a `CONNECT`, and joins the connection with another one.
async fn tunnel_to(
    target: std::net::SocketAddr,
) -> (String, mpsc::Receiver<String>, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://user:word@{}", listener.local_addr().unwrap());
    let (report, heads) = mpsc::channel(10);
    let task = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        report.send(String::from_utf8(head).unwrap()).await.unwrap();
        let mut server = TcpStream::connect(target).await.unwrap();
        client
            .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            .await
            .unwrap();
        let _ended = copy_bidirectional(&mut client, &mut server).await;
    });
    (url, heads, AbortOnDropHandle::new(task))
}
