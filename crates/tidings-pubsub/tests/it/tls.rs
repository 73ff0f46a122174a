//! Connections with TLS, through a proxy that ends it.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tidings_pubsub::postgres::{PostgresBroker, PostgresOptions};
use tidings_pubsub::redis::{RedisBroker, RedisOptions};
use tidings_pubsub::{Broker, Error, SubscribeOptions};
use tidings_test_support::{Proxy, Welcome, soon};
use tokio_rustls::TlsAcceptor;

use crate::faults::{message, publish, recv, subscribe, topics};

/// A certificate for 127.0.0.1 that is not trusted yet.
struct Identity {
    pem: String,
    der: CertificateDer<'static>,
    acceptor: TlsAcceptor,
}

impl Identity {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let der = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![der.clone()], key)
            .unwrap();
        Self {
            pem: made.cert.pem(),
            der,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        }
    }

    /// Settings of a client that trusts it.
    fn trusted(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

async fn works(broker: impl Broker) {
    let [topic] = topics(["secret"]);
    let mut subscription = subscribe(&broker, [&topic]).await;
    for size in [10, 100_000] {
        publish(&broker, &topic, vec![7; size]).await;
        let arrived = recv(&mut subscription).await;
        assert!(arrived == message(&topic, vec![7; size]), "{size} bytes");
    }
}

async fn is_refused(broker: impl Broker) {
    let [topic] = topics(["secret"]);
    let subscribed = broker.subscribe(vec![topic], SubscribeOptions::default());
    let refused = soon("a reply", subscribed).await;
    assert!(matches!(refused, Err(Error::Backend(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_reached_with_tls_when_it_is_trusted() {
    let (identity, other) = (Identity::new(), Identity::new());
    let welcome = Welcome::TlsOnRequest(identity.acceptor.clone());
    let proxy = Proxy::welcoming(&crate::postgres::url(), welcome)
        .await
        .unwrap();
    let required = format!("{}?sslmode=require", proxy.url());
    // Unless the URL says otherwise it takes TLS where there is TLS.
    for url in [proxy.url(), &required] {
        let config = tidings_postgres::Config::new(url).unwrap();
        works(PostgresBroker::open(
            config.clone().with_tls(identity.trusted()),
            PostgresOptions::default(),
        ))
        .await;
        is_refused(PostgresBroker::open(
            config.with_tls(other.trusted()),
            PostgresOptions::default(),
        ))
        .await;
    }
    let without = tidings_postgres::Config::new(&required).unwrap();
    is_refused(PostgresBroker::open(without, PostgresOptions::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_reached_with_tls_when_it_is_trusted() {
    let (identity, other) = (Identity::new(), Identity::new());
    let welcome = Welcome::Tls(identity.acceptor.clone());
    let proxy = Proxy::welcoming(&crate::redis::url(), welcome)
        .await
        .unwrap();
    let url = proxy.url().replacen("redis:", "rediss:", 1);
    let config = tidings_redis::Config::new(&url).unwrap();
    let trusting = |pem: &str| config.clone().with_root_certificates(pem).unwrap();
    works(RedisBroker::open(
        trusting(&identity.pem),
        RedisOptions::default(),
    ))
    .await;
    is_refused(RedisBroker::open(
        trusting(&other.pem),
        RedisOptions::default(),
    ))
    .await;
    is_refused(RedisBroker::open(config.clone(), RedisOptions::default())).await;
}
