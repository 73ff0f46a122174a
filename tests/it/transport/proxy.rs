//! Requests through a proxy.

#[cfg(any(feature = "rustls", feature = "native-tls"))]
mod tunnel;

use http::StatusCode;
use tidings::circuit_breaker::{CircuitBreakerConfig, CircuitState};
use tidings::{AddressPolicy, Client};
use tidings_test_support::Script;

use super::*;

#[tokio::test]
async fn a_plain_request_is_forwarded_with_its_whole_url_and_the_password_of_the_proxy() {
    let proxy = receiver(Reply::ok()).await;
    let url = format!("http://user:word@{}", proxy.address());
    let sender = Sender::builder().proxy(url).build().unwrap();
    // Only the proxy knows this name.
    let endpoint = Endpoint::builder("http://hooks.example.invalid/path");
    let attempt = attempt_by(&sender, endpoint).await;
    assert_eq!(attempt.verdict(), Verdict::Delivered, "{attempt:?}");
    let request = proxy.request(1).await;
    assert_eq!(request.head.target, "http://hooks.example.invalid/path");
    assert_eq!(request.header("host"), Some("hooks.example.invalid"));
    // printf 'user:word' | base64
    assert_eq!(
        request.header("proxy-authorization"),
        Some("Basic dXNlcjp3b3Jk")
    );
}

#[tokio::test]
async fn a_proxy_that_cannot_be_reached_is_local_trouble() {
    let unreachable = Unreachable::refusing().unwrap();
    let proxy = format!("http://{}", unreachable.address());
    let sender = Sender::builder().proxy(proxy).build().unwrap();
    for url in ["http://hooks.example.com/", "https://hooks.example.com/"] {
        let attempt = attempt_by(&sender, Endpoint::builder(url)).await;
        assert_eq!(attempt.error_kind(), Some(ErrorKind::Local), "{attempt:?}");
    }
}

#[tokio::test]
async fn a_proxy_whose_name_is_unknown_or_that_is_silent_is_local_trouble() {
    let silent = Unreachable::silent().await.unwrap();
    let short = Duration::from_millis(100);
    let named = || Sender::builder().proxy("http://proxy.example.invalid:3128");
    let silent = || Sender::builder().proxy(format!("http://{}", silent.address()));
    for (builder, timeout) in [
        (named(), Duration::from_secs(30)),
        (silent().connect_timeout(short), Duration::from_secs(30)),
        (silent(), short),
    ] {
        let sender = builder.build().unwrap();
        for url in ["http://127.0.0.1:9/", "https://127.0.0.1:9/"] {
            let attempt = attempt_by(&sender, Endpoint::builder(url).timeout(timeout)).await;
            assert_eq!(attempt.error_kind(), Some(ErrorKind::Local), "{attempt:?}");
        }
    }
}

#[tokio::test]
async fn a_tunnel_that_the_proxy_refuses_is_a_failed_connection() {
    let refuses = Script::always(Behaviour::Raw(
        "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n".into(),
    ));
    let proxy = receiver(refuses).await;
    let url = format!("http://{}", proxy.address());
    let sender = Sender::builder().proxy(url).build().unwrap();
    let attempt = attempt_by(&sender, Endpoint::builder("https://hooks.example.com/")).await;
    assert_eq!(
        attempt.error_kind(),
        Some(ErrorKind::Connect),
        "{attempt:?}"
    );
    assert!(!attempt.is_ambiguous());
}

#[tokio::test]
async fn a_proxy_that_wants_another_password_is_local_trouble_and_opens_no_circuit() {
    let refuses = Reply::new(StatusCode::PROXY_AUTHENTICATION_REQUIRED)
        .with_header("proxy-authenticate", "Basic realm=\"proxy\"");
    let proxy = receiver(refuses).await;
    let url = format!("http://user:old@{}", proxy.address());
    let sender = Sender::builder().proxy(url).build().unwrap();
    for url in ["http://hooks.example.com/", "https://hooks.example.com/"] {
        let attempt = attempt_by(&sender, Endpoint::builder(url)).await;
        assert_eq!(attempt.error_kind(), Some(ErrorKind::Local), "{attempt:?}");
        let error = attempt.result.as_ref().unwrap_err();
        assert_eq!(
            error.cause(),
            "the proxy asks for a user name and a password"
        );
        assert_eq!(attempt.verdict(), Verdict::Retryable);
        assert!(!attempt.is_ambiguous());

        let breaker = CircuitBreakerConfig::default().with_consecutive_failures(1);
        let client = Client::builder(url)
            .sender(sender.clone())
            .circuit_breaker(breaker)
            .build()
            .unwrap();
        client.start();
        let error = client.deliver("x").await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert_eq!(client.circuit_state(), Some(CircuitState::Closed));
    }
}

#[tokio::test]
async fn without_a_proxy_407_is_a_status_like_any_other() {
    let refused = StatusCode::PROXY_AUTHENTICATION_REQUIRED;
    let receiver = receiver(Reply::new(refused)).await;
    let attempt = attempt(Endpoint::builder(receiver.url("/"))).await;
    assert_eq!(attempt.status(), Some(refused));
}

#[tokio::test]
async fn a_proxy_and_an_address_policy_exclude_each_other() {
    let builder = Sender::builder()
        .proxy("http://127.0.0.1:3128")
        .address_policy(AddressPolicy::PublicOnly);
    assert_eq!(builder.build().unwrap_err().field(), "proxy");
}

#[tokio::test]
async fn an_error_of_the_proxy_is_a_status_like_any_other() {
    let proxy = receiver(Reply::new(StatusCode::BAD_GATEWAY)).await;
    let url = format!("http://{}", proxy.address());
    let sender = Sender::builder().proxy(url).build().unwrap();
    let attempt = attempt_by(&sender, Endpoint::builder("http://hooks.example.com/")).await;
    assert_eq!(attempt.status(), Some(StatusCode::BAD_GATEWAY));
}
