use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tidings_redis::redis::{ErrorKind, PushKind, ServerErrorKind, Value, cmd};
use tidings_redis::{Config, Error, Server};
use tidings_test_support::{Proxy, RedisServer, Unreachable, soon};
use tokio::sync::mpsc;

/// The server that the tests run against.
fn url() -> String {
    std::env::var("REDIS_URL").expect("REDIS_URL is set; scripts/services does so")
}

fn config(url: &str) -> Config {
    let config = Config::new(url).unwrap();
    config.with_reply_limit(Duration::from_secs(20))
}

async fn echo(server: &Server, text: &'static str) -> Result<String, Error> {
    let asked = server.run(|mut connection| async move {
        let mut echo = cmd("ECHO");
        echo.arg(text).query_async(&mut connection).await
    });
    soon("a reply", asked).await
}

#[tokio::test]
async fn all_share_one_connection() {
    let proxy = Proxy::start(&url()).await.unwrap();
    let server = Server::new(config(proxy.url()));
    for echoed in join_all((0..100).map(|_| echo(&server, "hello"))).await {
        assert_eq!(echoed.unwrap(), "hello");
    }
    assert_eq!(proxy.accepted(), 1);
    server.disconnect();
    soon("the connection to close", proxy.deserted()).await;
    assert_eq!(echo(&server, "again").await.unwrap(), "again");
    drop(server);
    soon("the connection to close", proxy.deserted()).await;
}

#[tokio::test]
async fn a_refusal_leaves_the_connection() {
    let proxy = Proxy::start(&url()).await.unwrap();
    let server = Server::new(config(proxy.url()));
    let refused = server.run(|mut connection| async move {
        let nonsense = cmd("NONSENSE");
        nonsense.exec_async(&mut connection).await
    });
    let refused = soon("a reply", refused).await.unwrap_err();
    let expected = ErrorKind::Server(ServerErrorKind::ResponseError);
    assert_eq!(refused.kind(), Some(expected), "{refused:?}");
    assert!(!refused.may_have_been_done());
    assert_eq!(echo(&server, "hello").await.unwrap(), "hello");
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn a_silent_connection_is_replaced_and_its_commands_may_have_been_done() {
    let proxy = Proxy::start(&url()).await.unwrap();
    let limit = Duration::from_secs(4);
    let server = Server::new(config(proxy.url()).with_reply_limit(limit));
    echo(&server, "hello").await.unwrap();
    proxy.freeze();
    let silent = echo(&server, "hello").await.unwrap_err();
    assert!(silent.may_have_been_done(), "{silent:?}");
    assert_eq!(echo(&server, "hello").await.unwrap(), "hello");
    assert_eq!(proxy.accepted(), 2);
}

#[tokio::test]
async fn without_a_connection_nothing_was_done() {
    let proxy = Proxy::start(&url()).await.unwrap();
    proxy.block();
    let server = Server::new(config(proxy.url()));
    let unsent = echo(&server, "hello").await.unwrap_err();
    assert!(matches!(unsent, Error::Unsent(_)), "{unsent:?}");
    proxy.restore();
    assert_eq!(echo(&server, "hello").await.unwrap(), "hello");
}

/// The check before the call gets no reply, so the call is not sent.
#[tokio::test]
async fn a_server_that_was_silent_before_a_call_has_done_nothing() {
    let proxy = Proxy::start(&url()).await.unwrap();
    let interval = Duration::from_millis(50);
    let config = config(proxy.url()).with_health_interval(interval);
    let server = Server::new(config.with_reply_limit(Duration::from_secs(4)));
    echo(&server, "hello").await.unwrap();
    proxy.freeze();
    tokio::time::sleep(interval).await;
    let unsent = echo(&server, "hello").await.unwrap_err();
    assert!(matches!(unsent, Error::Unsent(_)), "{unsent:?}");
    assert_eq!(echo(&server, "hello").await.unwrap(), "hello");
    assert_eq!(proxy.accepted(), 2);
}

#[tokio::test]
async fn connecting_to_a_silent_server_ends_at_the_limit() {
    let silent = Unreachable::silent().await.unwrap();
    let config = Config::new(&format!("redis://{}/", silent.address())).unwrap();
    let server = Server::new(config.with_reply_limit(Duration::from_millis(50)));
    let unsent = echo(&server, "hello").await.unwrap_err();
    assert!(matches!(unsent, Error::Unsent(_)), "{unsent:?}");
}

#[tokio::test]
async fn a_server_that_became_a_replica_is_connected_to_anew() {
    // Behind a name that leads to another server by then.
    let [old, new] = [RedisServer::start(), RedisServer::start()];
    let (old, new) = (old.await.unwrap(), new.await.unwrap());
    let proxy = Proxy::start(&old.url()).await.unwrap();
    let server = Server::new(config(proxy.url()));
    let set = async || {
        let command = server.run(|mut connection| async move {
            let mut set = cmd("SET");
            set.arg("key")
                .arg("value")
                .exec_async(&mut connection)
                .await
        });
        soon("a reply", command).await
    };
    set().await.unwrap();
    old.demote().unwrap();
    let refused = set().await.unwrap_err();
    assert!(refused.is_read_only(), "{refused:?}");
    assert!(!refused.may_have_been_done());
    // As long as there is no other.
    let refused = set().await.unwrap_err();
    assert!(matches!(refused, Error::NotPrimary), "{refused:?}");
    proxy.lead_to(&new.url()).unwrap();
    set().await.unwrap();
    assert_eq!(new.command(&["GET", "key"]).unwrap(), "value");
}

/// It replies to what only reads, without an error.
#[tokio::test]
async fn regression_a_server_that_became_a_replica_is_not_read_from() {
    let old = RedisServer::start().await.unwrap();
    let interval = Duration::from_millis(50);
    let server = Server::new(config(&old.url()).with_health_interval(interval));
    let read = async || {
        let command = server.run(|mut connection| async move {
            let mut get = cmd("GET");
            get.arg("key").exec_async(&mut connection).await
        });
        soon("a reply", command).await
    };
    read().await.unwrap();
    old.demote().unwrap();
    let refused = async {
        loop {
            match read().await {
                Ok(()) => tokio::time::sleep(interval / 10).await,
                Err(refused) => return refused,
            }
        }
    };
    let refused = soon("a refusal", refused).await;
    assert!(matches!(refused, Error::NotPrimary), "{refused:?}");
    let refused = read().await.unwrap_err();
    assert!(matches!(refused, Error::NotPrimary), "{refused:?}");
    old.promote().unwrap();
    read().await.unwrap();
}

#[tokio::test]
async fn a_ping_notices_a_replica_whatever_the_user_may_do() {
    let server = RedisServer::start().await.unwrap();
    let user = ["ACL", "SETUSER", "clerk", "on", ">secret", "+get", "~*"];
    server.command(&user).unwrap();
    let url = format!("{}?user=clerk&pass=secret", server.url());
    let connection = config(&url).connect(drop).await.unwrap();
    connection.ping().await.unwrap();
    server.demote().unwrap();
    let refused = connection.ping().await.unwrap_err();
    assert!(matches!(refused, Error::NotPrimary), "{refused:?}");
    let refused = config(&url).connect(drop).await.unwrap_err();
    assert!(matches!(refused, Error::NotPrimary), "{refused:?}");
    server.promote().unwrap();
    connection.ping().await.unwrap();
}

#[tokio::test]
async fn what_the_server_sends_unasked_arrives_in_order_and_so_does_the_break() {
    let proxy = Proxy::start(&url()).await.unwrap();
    let (arrive, mut arrived) = mpsc::channel(16);
    let push = move |info| arrive.try_send(info).unwrap();
    let connection = Arc::new(config(proxy.url()).connect(push).await.unwrap());
    let channel = format!("test-order-{}", std::process::id());
    let mut multiplexed = connection.multiplexed();
    multiplexed.subscribe(&channel).await.unwrap();
    for number in 0..3 {
        let mut publish = cmd("PUBLISH");
        publish.arg(&channel).arg(number);
        publish.exec_async(&mut multiplexed).await.unwrap();
    }
    let first = soon("a push", arrived.recv()).await.unwrap();
    assert_eq!(first.kind, PushKind::Subscribe);
    for number in 0..3 {
        let message = soon("a push", arrived.recv()).await.unwrap();
        assert_eq!(message.kind, PushKind::Message);
        let payload = Value::BulkString(number.to_string().into_bytes());
        assert_eq!(message.data[1], payload);
    }
    assert!(!connection.is_broken());
    proxy.block();
    soon("the break", connection.broken()).await;
    assert!(connection.is_broken());
}
