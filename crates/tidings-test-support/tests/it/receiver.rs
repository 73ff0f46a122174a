//! The receiver's life, and addresses where there is none.

use std::io;
use std::time::Duration;

use tidings_test_support::{Behaviour, Receiver, Reply, Unreachable};
use tokio::net::TcpStream;

use crate::client::hello;

#[tokio::test]
async fn dropping_it_ends_its_connections_and_frees_its_port() {
    let (receiver, mut client) = hello(Behaviour::NeverReply).await;
    receiver.request(1).await;
    let address = receiver.address();
    drop(receiver);
    let (nothing, _closed_or_reset) = client.rest().await;
    assert!(nothing.is_empty());
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn urls_name_the_scheme_and_the_port() {
    let receiver = Receiver::start(Reply::ok()).await.unwrap();
    let address = receiver.address();
    assert!(address.ip().is_loopback());
    assert_eq!(receiver.url("/a"), format!("http://{address}/a"));
    assert_eq!(receiver.https_url("/a"), format!("https://{address}/a"));
    assert!(receiver.authority().is_none());
}

#[tokio::test]
async fn a_refusing_address_refuses() {
    let unreachable = Unreachable::refusing().unwrap();
    let refused = TcpStream::connect(unreachable.address()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_silent_address_keeps_connections_waiting() {
    let unreachable = Unreachable::silent().await.unwrap();
    assert_eq!(
        unreachable.url("/a"),
        format!("http://{}/a", unreachable.address())
    );
    let connecting = TcpStream::connect(unreachable.address());
    // The only proof of silence is to listen for a while; a slow machine cannot make it fail.
    let waited = tokio::time::timeout(Duration::from_millis(300), connecting).await;
    assert!(waited.is_err(), "{waited:?}");
}
