//! Trouble of this machine, which is not blamed on endpoints.

use std::process::Command;

use tidings::circuit_breaker::{CircuitBreakerConfig, CircuitState};
use tidings::{AttemptError, Client, Resolve, ResolveError, Resolved};

use super::*;

/// A name server that replies to nothing.
struct Silent;

#[async_trait::async_trait]
impl Resolve for Silent {
    async fn resolve(&self, _name: &str) -> Result<Resolved, ResolveError> {
        std::future::pending().await
    }
}

/// A name server that cannot be reached.
struct Unavailable;

#[async_trait::async_trait]
impl Resolve for Unavailable {
    async fn resolve(&self, _name: &str) -> Result<Resolved, ResolveError> {
        Err(ResolveError::Unavailable("no route".into()))
    }
}

/// A name server that knows no such name.
struct Unknown;

#[async_trait::async_trait]
impl Resolve for Unknown {
    async fn resolve(&self, _name: &str) -> Result<Resolved, ResolveError> {
        Err(ResolveError::NotFound("no such name".into()))
    }
}

fn client(resolver: impl Resolve) -> Client {
    let breaker = CircuitBreakerConfig::default().with_consecutive_failures(1);
    let sender = Sender::builder()
        .resolver(resolver)
        .connect_timeout(Duration::from_millis(100))
        .build()
        .unwrap();
    Client::builder("http://hooks.example.com/")
        .sender(sender)
        .circuit_breaker(breaker)
        .build()
        .unwrap()
}

#[tokio::test]
async fn regression_a_name_server_that_is_silent_or_down_opens_no_circuit() {
    for (client, kind, circuit) in [
        (client(Silent), ErrorKind::Local, CircuitState::Closed),
        (client(Unavailable), ErrorKind::Local, CircuitState::Closed),
        (client(Unknown), ErrorKind::Dns, CircuitState::Open),
    ] {
        client.start();
        let error = client.deliver("x").await.unwrap_err();
        assert_eq!(error.attempts()[0].error_kind(), Some(kind));
        assert!(error.is_retryable());
        assert_eq!(client.circuit_state(), Some(circuit), "{kind:?}");
    }
}

#[tokio::test]
async fn a_deadline_that_passes_during_the_lookup_is_local_too() {
    let builder = Sender::builder().resolver(Silent);
    let sender = builder.build().unwrap();
    let endpoint = Endpoint::builder("http://hooks.example.com/");
    let attempt = attempt_by(&sender, endpoint.timeout(Duration::from_millis(100))).await;
    assert_eq!(attempt.error_kind(), Some(ErrorKind::Local));
    assert!(!attempt.is_ambiguous());
}

#[tokio::test]
async fn regression_without_certificate_authorities_plain_http_still_works() {
    let receiver = receiver(Reply::ok()).await;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "--ignored",
            "transport::local::without_authorities",
        ])
        .env("TIDINGS_TEST_TARGET", receiver.url("/"))
        .env("SSL_CERT_FILE", "/nowhere/at/all.pem")
        .env("SSL_CERT_DIR", "/nowhere/at/all");
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

#[tokio::test]
#[ignore = "a part of the test above, which gives it an environment"]
async fn without_authorities() {
    let url = std::env::var("TIDINGS_TEST_TARGET").unwrap();
    let sender = Sender::builder().build().unwrap();
    let plain = attempt_by(&sender, Endpoint::builder(&url)).await;
    assert_eq!(plain.verdict(), Verdict::Delivered, "{plain:?}");
    let secured = attempt_by(&sender, Endpoint::builder(url.replace("http:", "https:"))).await;
    assert_eq!(secured.error_kind(), Some(ErrorKind::Local), "{secured:?}");
    let cause = secured.result.as_ref().map_err(AttemptError::cause);
    assert!(cause.unwrap_err().contains("TLS cannot be used"));
}

/// Which is refused for any address of a group: for one that no router knows, the system says the same.
#[tokio::test]
async fn regression_an_address_without_a_route_is_a_failure_of_the_endpoint() {
    for url in [
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "https://224.0.0.1/",
    ] {
        let breaker = CircuitBreakerConfig::default().with_consecutive_failures(1);
        let client = Client::builder(url)
            .circuit_breaker(breaker)
            .build()
            .unwrap();
        client.start();
        let error = client.deliver("x").await.unwrap_err();
        let attempt = &error.attempts()[0];
        assert_eq!(
            attempt.error_kind(),
            Some(ErrorKind::Connect),
            "{attempt:?}"
        );
        assert!(error.is_retryable());
        assert_eq!(client.circuit_state(), Some(CircuitState::Open), "{url}");
    }
}

#[tokio::test]
async fn regression_of_two_families_the_one_with_a_route_says_what_failed() {
    let unreachable = Unreachable::refusing().unwrap();
    // The other one is on no link in particular, so that no machine has a route to it.
    let names = crate::hostile::resolver::Names::new(&[&["127.0.0.1", "fe80::1"]]);
    let sender = Sender::builder().resolver(names).build().unwrap();
    let port = unreachable.address().port();
    let endpoint = Endpoint::builder(format!("http://hooks.example.com:{port}/"));
    let attempt = attempt_by(&sender, endpoint).await;
    assert_eq!(
        attempt.error_kind(),
        Some(ErrorKind::Refused),
        "{attempt:?}"
    );
}
