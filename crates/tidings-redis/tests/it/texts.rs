//! What errors say: each names what the user can change, in words of the house.

use std::time::Duration;

use tidings_redis::redis::{ErrorKind, RedisError, ServerErrorKind, cmd};
use tidings_redis::{Config, Error, Server};
use tidings_test_support::{Impostor, RedisServer, Unreachable, explain};

async fn refused(url: &str) -> String {
    let config = Config::new(url).unwrap();
    let config = config.with_reply_limit(Duration::from_secs(2));
    let error = config.connect(drop).await.unwrap_err();
    assert!(matches!(error, Error::Unsent(_)), "{url}: {error:?}");
    explain(&error)
}

#[tokio::test]
async fn a_server_that_cannot_be_connected_to_is_explained() {
    for (url, says) in [
        (
            "redis://127.0.0.1:1/",
            "no server listens at the host and port of the URL",
        ),
        (
            "redis+unix:///does/not/exist",
            "there is no socket at the path of the URL",
        ),
        (
            "redis://two..dots/",
            "the host of the URL has no address that can be found",
        ),
    ] {
        let expected = format!("cannot connect to the Redis server: {says}");
        assert_eq!(refused(url).await, expected, "{url}");
    }
    let silent = Unreachable::silent().await.unwrap();
    let config = Config::new(&format!("redis://{}/", silent.address())).unwrap();
    let config = config.with_reply_limit(Duration::from_millis(50));
    let error = config.connect(drop).await.unwrap_err();
    let says = "cannot connect to the Redis server: the server did not reply in time";
    assert_eq!(explain(&error), says);
}

#[tokio::test]
async fn what_replies_in_place_of_redis_is_explained() {
    const NO_REDIS: &str =
        "what replies there does not speak the protocol of Redis; a port for TLS needs `rediss://`";
    const ENDED: &str = "the server ended the connection: it may have no room for clients (`maxclients`), \
                         or expect TLS (`rediss://`)";
    for (scheme, bytes, says) in [
        ("redis", &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], NO_REDIS),
        // The alert with which a server of TLS refuses a client that does not speak it.
        ("redis", b"\x15\x03\x03\x00\x02\x02\x46", NO_REDIS),
        ("redis", b"", ENDED),
        ("redis", b"-ERR max number of clients reached\r\n", ENDED),
        (
            "redis",
            b"-LOADING Redis is loading the dataset in memory\r\n+OK\r\n+OK\r\n",
            "Redis replied: LOADING Redis is loading the dataset in memory",
        ),
        (
            "rediss",
            b"-ERR unknown command\r\n",
            "the server does not speak TLS at this port",
        ),
    ] {
        let server = Impostor::start(bytes).await.unwrap();
        let address = server.address();
        let said = refused(&format!("{scheme}://:secret@{address}/")).await;
        let expected = format!("cannot connect to the Redis server: {says}");
        assert_eq!(said, expected, "{bytes:?}");
    }
}

#[tokio::test]
async fn a_server_that_refuses_the_login_is_explained() {
    let server = RedisServer::start().await.unwrap();
    let user = ["ACL", "SETUSER", "clerk", "on", ">secret", "+get", "~*"];
    server.command(&user).unwrap();
    let locked = RedisServer::start().await.unwrap();
    let lock = ["CONFIG", "SET", "requirepass", "secret"];
    locked.command(&lock).unwrap();
    for (url, says) in [
        (
            format!("{}?user=clerk&pass=wrong", server.url()),
            "the server refused the user or the password of the URL",
        ),
        (
            format!("{}?pass=wrong", locked.url()),
            "the server refused the user or the password of the URL",
        ),
        (
            locked.url(),
            "the server demands a password, and the URL has none",
        ),
        (
            format!("{}?db=99", server.url()),
            "the server refused the database 99 of the URL (Redis replied: ERR DB index is out of range)",
        ),
    ] {
        let expected = format!("cannot connect to the Redis server: {says}");
        assert_eq!(refused(&url).await, expected, "{url}");
    }
}

#[test]
fn a_url_that_cannot_be_read_is_explained() {
    for (url, says) in [
        (
            "localhost:6379",
            "it does not begin with `redis://`, `rediss://` or `redis+unix://`",
        ),
        ("redis://", "it has no host"),
        (
            "redis://host/two",
            "the number of its database is not a whole number from 0",
        ),
    ] {
        let said = explain(&Config::new(url).unwrap_err());
        let expected = format!("expected the URL of Redis to be `redis://host:port/`: {says}");
        assert_eq!(said, expected);
    }
}

#[tokio::test]
async fn a_refused_command_is_explained_once() {
    let server = RedisServer::start().await.unwrap();
    let user = ["ACL", "SETUSER", "clerk", "on", ">secret", "+get", "~*"];
    server.command(&user).unwrap();
    let config = Config::new(&format!("{}?user=clerk&pass=secret", server.url())).unwrap();
    let server = Server::new(config);
    let set = server.run(|mut connection| async move {
        let mut set = cmd("SET");
        set.arg("key").arg("value");
        set.exec_async(&mut connection).await
    });
    let said = explain(&set.await.unwrap_err());
    let expected = "the Redis server refused a command: Redis replied: NOPERM ";
    assert!(said.starts_with(expected), "{said}");
    assert_eq!(said.matches("NOPERM").count(), 1, "{said}");
}

/// Tidings connects to one server. A node of a cluster that has not all slots sends clients elsewhere.
#[tokio::test]
async fn a_node_of_a_cluster_is_named_as_such() {
    const CLUSTER: &str = "the Redis server refused a command: it is a node of a Redis Cluster, and \
                           Tidings needs a single server: Redis replied: ";
    let node = RedisServer::start_node().await.unwrap();
    let server = Server::new(Config::new(&node.url()).unwrap());
    let get = server.run(|mut connection| async move {
        let mut get = cmd("GET");
        get.arg("key").exec_async(&mut connection).await
    });
    let said = explain(&get.await.unwrap_err());
    assert!(
        said.starts_with(&format!("{CLUSTER}CLUSTERDOWN ")),
        "{said}"
    );

    let elsewhere = "12182 127.0.0.1:7002".to_owned();
    let moved = RedisError::from((
        ErrorKind::Server(ServerErrorKind::Moved),
        "an error",
        elsewhere.clone(),
    ));
    let said = explain(&Error::Refused(moved.into()));
    assert_eq!(said, format!("{CLUSTER}MOVED {elsewhere}"));
}
