//! What errors say: each names what the user can change, in words of the house.

use std::time::Duration;

use tidings_postgres::{Config, Connections, Database, Error, Sessions};
use tidings_test_support::{Impostor, PostgresServer, Unreachable, explain, soon};

use super::support::{database, url};

async fn refused(url: &str, limit: Duration) -> String {
    let config = Config::new(url).unwrap().with_reply_limit(limit);
    let error = soon("a refusal", config.connect()).await.map(drop);
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Unsent(_)), "{url}: {error:?}");
    explain(&error)
}

/// The message with which a server refuses a client.
fn refusal(code: &str, message: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap();
    [b"E", &length.to_be_bytes()[..], fields.as_bytes()].concat()
}

#[tokio::test]
async fn a_server_that_cannot_be_connected_to_is_explained() {
    let silent = Unreachable::silent().await.unwrap();
    for (url, says) in [
        (
            "postgres://anna@127.0.0.1:1/x".to_owned(),
            "no server listens at the host and port of the URL",
        ),
        (
            "postgres://anna@%2Fdoes%2Fnot%2Fexist/x".to_owned(),
            "there is no socket at the path of the URL",
        ),
        (
            "postgres://anna@two..dots/x".to_owned(),
            "the host of the URL has no address that can be found",
        ),
        (
            format!("postgres://anna@{}/x", silent.address()),
            "the server did not reply in time",
        ),
    ] {
        let expected = format!("cannot connect to the database: {says}");
        let said = refused(&url, Duration::from_millis(500)).await;
        assert_eq!(said, expected, "{url}");
    }
}

#[tokio::test]
async fn what_the_server_replies_on_connecting_is_explained() {
    for (bytes, mode, says) in [
        (
            refusal("28P01", "password authentication failed for user \"anna\""),
            "disable",
            "PostgreSQL refused the user or the password: \
             password authentication failed for user \"anna\"",
        ),
        (
            refusal("28000", "role \"anna\" does not exist"),
            "disable",
            "PostgreSQL refused the user or the password: role \"anna\" does not exist",
        ),
        (
            refusal("3D000", "database \"x\" does not exist"),
            "disable",
            "the URL names a database that does not exist: database \"x\" does not exist",
        ),
        (
            refusal("53300", "sorry, too many clients already"),
            "disable",
            "PostgreSQL takes no more connections: sorry, too many clients already",
        ),
        (
            refusal("57P03", "the database system is starting up"),
            "disable",
            "PostgreSQL takes no connections at the moment: the database system is starting up",
        ),
        (
            refusal("42501", "no"),
            "disable",
            "PostgreSQL refused the connection: no",
        ),
        (b"N".to_vec(), "require", "server does not support TLS"),
        (
            b"S-ERR unknown command\r\n".to_vec(),
            "require",
            "the server does not speak TLS at this port",
        ),
        (
            Vec::new(),
            "disable",
            "the connection ended before the server had replied",
        ),
        (
            // A message that no server sends at this point.
            b"1\0\0\0\x04".to_vec(),
            "disable",
            "what replies there does not speak the protocol of PostgreSQL",
        ),
    ] {
        let server = Impostor::start(bytes).await.unwrap();
        let address = server.address();
        let url = format!("postgres://anna:secret@{address}/x?sslmode={mode}");
        let expected = format!("cannot connect to the database: {says}");
        assert_eq!(refused(&url, Duration::from_secs(5)).await, expected);
    }
}

#[tokio::test]
async fn a_standby_is_named_as_such() {
    let primary = PostgresServer::start().unwrap();
    let standby = primary.start_standby(Duration::ZERO).unwrap();
    let said = refused(&standby.url(), Duration::from_secs(5)).await;
    let says = "cannot connect to the database: the server is a standby, which takes no writes";
    assert_eq!(said, says);
}

#[tokio::test]
async fn a_pool_without_a_free_connection_is_no_broken_network() {
    let config = Config::new(&url()).unwrap();
    let database = Database::new(config.with_reply_limit(Duration::from_millis(100)));
    let sessions = Sessions::of(&database).await.unwrap();
    let connections = Connections::new(database, 1, sessions);
    let refused = loop {
        let sleep = connections.query("SELECT pg_sleep(60)", &[]);
        let ask = connections.query("SELECT 1", &[]);
        let (_cancelled, asked) = tokio::join!(sleep, ask);
        // The sleep may be cancelled just before the other one gives up.
        if let Err(refused) = asked {
            break refused;
        }
    };
    let said = explain(&refused);
    let says = "cannot connect to the database: all connections of the pool are in use";
    assert_eq!(said, says);
}

#[tokio::test]
async fn a_server_that_ends_the_connection_is_explained() {
    let terminate = "SELECT pg_terminate_backend(pg_backend_pid())";
    let database = database(&url());
    let ended = database.run(|client| async move { client.batch_execute(terminate).await });
    let said = explain(&soon("the end", ended).await.unwrap_err());
    assert!(said.starts_with("the database did not reply: "), "{said}");
    assert!(!said.contains("os error"), "{said}");
}
