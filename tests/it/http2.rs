//! Receivers that speak HTTP/2, which is chosen in the handshake of TLS.

mod faults;

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tidings::signing::{Secret, Verifier};
use tidings::{Endpoint, Message, Sender, Verdict};
use tokio::net::TcpListener;
use tokio::sync::{Barrier, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// A request as it arrived.
type Arrived = (SocketAddr, Version, HeaderMap, Bytes);

struct Server {
    url: String,
    pem: String,
    arrived: mpsc::Receiver<Arrived>,
    _task: AbortOnDropHandle<()>,
}

/// Replies every request once so many are there at the same time.
async fn serve(at_once: usize) -> Server {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], PrivateKeyDer::from(key))
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (report, arrived) = mpsc::channel(1000);
    let together = Arc::new(Barrier::new(at_once));
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, peer)) = listener.accept().await {
            let stream = acceptor.accept(stream).await.unwrap();
            let (report, together) = (report.clone(), Arc::clone(&together));
            let service = service_fn(move |request: Request<Incoming>| {
                let (report, together) = (report.clone(), Arc::clone(&together));
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let arrived = (peer, head.version, head.headers, body);
                    report.try_send(arrived).unwrap();
                    together.wait().await;
                    let mut response = Response::new(Full::new(Bytes::from_static(b"taken")));
                    *response.status_mut() = StatusCode::ACCEPTED;
                    Ok::<_, Infallible>(response)
                }
            });
            let connection = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            connections.spawn(connection);
        }
    });
    Server {
        url: format!("https://localhost:{port}/hooks"),
        pem: certified.cert.pem(),
        arrived,
        _task: AbortOnDropHandle::new(task),
    }
}

#[tokio::test]
async fn it_is_spoken_where_the_receiver_does_and_one_connection_is_enough() {
    const AT_ONCE: usize = 20;
    let mut server = serve(AT_ONCE).await;
    let sender = Sender::builder()
        .root_certificates(server.pem)
        .build()
        .unwrap();
    let secret = Secret::generate();
    let endpoint = Endpoint::builder(&server.url)
        .secret(secret.clone())
        .timeout(Duration::from_secs(60))
        .build()
        .unwrap();
    let mut attempts = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (sender, endpoint) = (sender.clone(), endpoint.clone());
        attempts.spawn(async move { sender.attempt(&endpoint, &Message::from("hello"), 1).await });
    }
    for attempt in attempts.join_all().await {
        assert_eq!(attempt.verdict(), Verdict::Delivered, "{attempt:?}");
        let reply = attempt.result.unwrap();
        assert_eq!(
            (reply.status, &reply.body_head[..]),
            (StatusCode::ACCEPTED, &b"taken"[..])
        );
    }
    let mut peers = HashSet::new();
    for _ in 0..AT_ONCE {
        let (peer, version, headers, body) = server.arrived.recv().await.unwrap();
        assert_eq!((version, &body[..]), (Version::HTTP_2, &b"hello"[..]));
        let verifier = Verifier::new(secret.clone());
        verifier
            .verify(&headers, &body, jiff::Timestamp::now())
            .unwrap();
        peers.insert(peer);
    }
    assert_eq!(peers.len(), 1, "one connection for all: {peers:?}");
}
