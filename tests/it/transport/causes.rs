//! What is said about a connection that could not be made: what failed, and no words of libraries.

use tidings::AddressPolicy;

use super::*;
use crate::hostile::resolver::Names;

fn cause(attempt: &Attempt) -> String {
    attempt.result.as_ref().unwrap_err().cause()
}

#[tokio::test]
async fn a_cause_begins_with_what_failed() {
    let unreachable = Unreachable::refusing().unwrap();
    let refused = attempt(Endpoint::builder(unreachable.url("/"))).await;
    assert!(
        cause(&refused).starts_with("Connection refused"),
        "{refused:?}"
    );

    let name = || Endpoint::builder("http://hooks.example.com/");
    let resolving = |addresses| Sender::builder().resolver(Names::new(&[addresses]));
    let sender = resolving(&[]).build().unwrap();
    let unknown = attempt_by(&sender, name()).await;
    assert_eq!(
        cause(&unknown),
        "the lookup failed: the name has no address"
    );

    let sender = resolving(&["10.0.0.1"]).address_policy(AddressPolicy::PublicOnly);
    let blocked = attempt_by(&sender.build().unwrap(), name()).await;
    assert_eq!(cause(&blocked), "the address 10.0.0.1 is not allowed");
}

/// As above, over another HTTP client.
#[cfg(feature = "reqwest")]
#[tokio::test]
async fn a_cause_over_reqwest_begins_with_what_failed() {
    let sender = Sender::builder().http_client(reqwest::Client::builder());
    let sender = sender.build().unwrap();
    let unreachable = Unreachable::refusing().unwrap();
    let refused = attempt_by(&sender, Endpoint::builder(unreachable.url("/"))).await;
    let said = cause(&refused);
    assert!(said.starts_with("Connection refused"), "{said}");
    for behaviour in [Behaviour::HangUp, Behaviour::Raw("nonsense\r\n\r\n".into())] {
        let receiver = receiver(behaviour).await;
        let failed = attempt_by(&sender, Endpoint::builder(receiver.url("/"))).await;
        let said = cause(&failed);
        assert!(!said.contains("sending request"), "{said}");
        assert!(!said.contains("client error"), "{said}");
    }
}

#[tokio::test]
async fn a_proxy_is_named_where_it_is_what_failed() {
    let unreachable = Unreachable::refusing().unwrap();
    let proxy = format!("http://{}", unreachable.address());
    let sender = Sender::builder().proxy(proxy).build().unwrap();
    for url in ["http://hooks.example.com/", "https://hooks.example.com/"] {
        let said = cause(&attempt_by(&sender, Endpoint::builder(url)).await);
        let expected = "the proxy could not be reached: Connection refused";
        assert!(said.starts_with(expected), "{said}");
    }
    let head = |status| Behaviour::Raw(format!("HTTP/1.1 {status}\r\n\r\n").into());
    let failed = ErrorKind::Connect;
    for (behaviour, kind, expected) in [
        (
            head("502 Bad Gateway"),
            failed,
            "the proxy opened no tunnel",
        ),
        (
            head("407 Proxy Authentication Required"),
            ErrorKind::Local,
            "the proxy asks for a user name and a password",
        ),
        (Behaviour::HangUp, failed, "the proxy closed the connection"),
        (
            Behaviour::HugeHeader { bytes: 100_000 },
            failed,
            "the proxy replied with too large a head",
        ),
    ] {
        let proxy = receiver(behaviour).await;
        let url = format!("http://{}", proxy.address());
        let sender = Sender::builder().proxy(url).build().unwrap();
        let endpoint = Endpoint::builder("https://hooks.example.com/");
        let attempt = attempt_by(&sender, endpoint).await;
        assert_eq!(cause(&attempt), expected);
        assert_eq!(attempt.error_kind(), Some(kind));
    }
}
