//! TLS, in order and with one fault each.

use std::io;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};
use tidings_test_support::{Authority, Behaviour, Receiver, Reply, Tls};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{Client, HELLO};

async fn start(tls: Tls, behaviour: impl Into<Behaviour>) -> Receiver {
    let behaviour = behaviour.into();
    let builder = Receiver::builder(behaviour).with_tls(tls);
    builder.start().await.unwrap()
}

/// Connects like a sender that trusts this authority and no other.
async fn connect(
    receiver: &Receiver,
    trusted: &Authority,
    name: &'static str,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from(trusted.der().to_vec());
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(receiver.address()).await.unwrap();
    let name = ServerName::try_from(name).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await
}

/// Why a sender that trusts the receiver's authority turns it down.
async fn fault(tls: Tls) -> CertificateError {
    let receiver = start(tls, Reply::ok()).await;
    let refused = connect(&receiver, receiver.authority().unwrap(), "localhost").await;
    let closed = receiver.closed(1).await;
    assert_eq!((closed.requests, closed.bytes_sent), (0, 0));
    match refused.unwrap_err().downcast().unwrap() {
        Error::InvalidCertificate(error) => error,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_valid_certificate_serves_its_name_and_its_address() {
    let receiver = start(Tls::Valid, Reply::ok().with_close()).await;
    assert!(receiver.url("/").starts_with("https://127.0.0.1:"));
    let authority = receiver.authority().unwrap();
    assert!(authority.pem().starts_with("-----BEGIN CERTIFICATE-----"));
    for name in ["localhost", "127.0.0.1"] {
        let mut client = Client::new(connect(&receiver, authority, name).await.unwrap());
        client.send(HELLO).await;
        client
            .expect_last("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .await;
    }
    assert_eq!(receiver.request(2).await.body, "hello");
}

#[tokio::test]
async fn hostility_works_beneath_tls() {
    let receiver = start(Tls::Valid, Behaviour::ResetAfterBody).await;
    let authority = receiver.authority().unwrap();
    let mut client = Client::new(connect(&receiver, authority, "localhost").await.unwrap());
    client.send(HELLO).await;
    client.expect_reset().await;
    assert_eq!(receiver.request(1).await.body, "hello");
}

#[tokio::test]
async fn an_expired_certificate_has_no_other_fault() {
    let error = fault(Tls::Expired).await;
    assert!(
        matches!(error, CertificateError::ExpiredContext { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_certificate_for_another_name_has_no_other_fault() {
    let error = fault(Tls::WrongName).await;
    assert!(
        matches!(error, CertificateError::NotValidForNameContext { .. }),
        "{error:?}"
    );
    let receiver = start(Tls::WrongName, Reply::ok()).await;
    let authority = receiver.authority().unwrap();
    connect(&receiver, authority, "wrong.invalid")
        .await
        .unwrap();
}

#[tokio::test]
async fn an_unknown_authority_is_not_the_one_to_trust() {
    let error = fault(Tls::UnknownAuthority).await;
    assert!(
        matches!(
            error,
            CertificateError::UnknownIssuer | CertificateError::BadSignature
        ),
        "{error:?}"
    );
    // Nor does the authority of one receiver speak for another.
    let other = start(Tls::Valid, Reply::ok()).await;
    let receiver = start(Tls::Valid, Reply::ok()).await;
    assert!(
        connect(&receiver, other.authority().unwrap(), "localhost")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_stalled_handshake_lasts_until_the_sender_leaves() {
    let receiver = start(Tls::Stalled, Reply::ok()).await;
    let authority = receiver.authority().unwrap();
    tokio::select! {
        ended = connect(&receiver, authority, "localhost") => panic!("{ended:?}"),
        () = receiver.connected(1) => {}
    }
    assert_eq!(receiver.closed(1).await.bytes_sent, 0);
}

#[tokio::test]
async fn plain_text_on_a_tls_port_is_no_handshake() {
    let receiver = Receiver::start(Reply::ok()).await.unwrap();
    let any = start(Tls::Valid, Reply::ok()).await;
    let refused = connect(&receiver, any.authority().unwrap(), "localhost").await;
    let error: Error = refused.unwrap_err().downcast().unwrap();
    assert!(matches!(error, Error::InvalidMessage(_)), "{error:?}");
    assert!(receiver.requests().is_empty());
}
