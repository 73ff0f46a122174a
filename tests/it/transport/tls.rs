//! Certificates of the sender, and TLS settings of one's own.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tidings::SenderBuilder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::*;

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// A receiver that takes no connection without a certificate of its authority.
struct Strict {
    address: SocketAddr,
    authority: Issuer,
    /// The certificates that were shown, the own one first.
    shown: mpsc::Receiver<Vec<CertificateDer<'static>>>,
    _task: AbortOnDropHandle<()>,
}

fn authority() -> Issuer {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(name: &str, issuer: &Issuer) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.signed_by(&key, issuer).unwrap(), key)
}

impl Strict {
    async fn start() -> Self {
        let authority = authority();
        let (certificate, key) = leaf("127.0.0.1", &authority);
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let roots = Arc::new(roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (show, shown) = mpsc::channel(10);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let certificates = stream.get_ref().1.peer_certificates().unwrap().to_vec();
                show.try_send(certificates).unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"hello") {
                    stream.read_buf(&mut request).await.unwrap();
                }
                let reply = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                stream.write_all(reply).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        Self {
            address,
            authority,
            shown,
            _task: AbortOnDropHandle::new(task),
        }
    }

    async fn attempt_by(&self, builder: SenderBuilder) -> Attempt {
        let sender = builder.build().unwrap();
        let url = format!("https://{}/", self.address);
        attempt_by(&sender, Endpoint::builder(url)).await
    }
}

#[tokio::test]
async fn a_receiver_that_asks_for_a_certificate_gets_the_one_that_was_set() {
    let mut receiver = Strict::start().await;
    let pem = receiver.authority.pem();
    let trusting = || Sender::builder().root_certificates(pem.clone());

    let without = receiver.attempt_by(trusting()).await;
    assert!(!without.is_ambiguous() || without.error_kind() == Some(ErrorKind::Reset));
    assert_eq!(without.status(), None, "{without:?}");
    let (other, key) = leaf("sender", &authority());
    let builder = trusting().client_certificate(other.pem(), key.serialize_pem());
    assert_eq!(receiver.attempt_by(builder).await.status(), None);
    assert!(receiver.shown.try_recv().is_err());

    let (own, key) = leaf("sender", &receiver.authority);
    let builder = trusting().client_certificate(own.pem(), key.serialize_pem());
    let attempt = receiver.attempt_by(builder).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered, "{attempt:?}");
    assert_eq!(receiver.shown.try_recv().unwrap(), [own.der().clone()]);
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused_when_the_sender_is_built() {
    let authority = authority();
    let (certificate, key) = leaf("sender", &authority);
    let (_, other_key) = leaf("sender", &authority);
    let (certificate, key) = (certificate.pem(), key.serialize_pem());
    for (chain, key) in [
        ("no certificate", &key[..]),
        (&certificate, "no key"),
        (&certificate, &other_key.serialize_pem()),
    ] {
        let builder = Sender::builder().client_certificate(chain, key);
        let error = builder.build().unwrap_err();
        assert_eq!(error.field(), "client_certificate");
    }
}

#[cfg(feature = "rustls")]
#[tokio::test]
async fn a_tls_configuration_replaces_all_other_settings() {
    let mut receiver = Strict::start().await;
    let (own, key) = leaf("sender", &receiver.authority);
    let mut roots = RootCertStore::empty();
    roots.add(receiver.authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![own.der().clone()], key)
        .unwrap();
    let configured = || Sender::builder().tls_config(config.clone());
    let attempt = receiver.attempt_by(configured()).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered, "{attempt:?}");
    assert_eq!(receiver.shown.try_recv().unwrap(), [own.der().clone()]);

    let pem = receiver.authority.pem();
    for builder in [
        configured().root_certificates(pem.clone()),
        configured().client_certificate(pem.clone(), pem.clone()),
    ] {
        assert_eq!(builder.build().unwrap_err().field(), "tls_config");
    }
}
