//! Private servers do what a test asks of them.

use std::time::Duration;

use tidings_test_support::{
    Fault, Outage, PostgresOutage, PostgresServer, RedisOutage, RedisServer,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Connects through the proxy of an outage.
async fn connect(outage: &dyn Outage) -> TcpStream {
    let url = outage.url();
    let authority = url.split("://").nth(1).unwrap();
    let authority = authority.split('/').next().unwrap();
    let address = authority.rsplit('@').next().unwrap();
    TcpStream::connect(address).await.unwrap()
}

/// Whether the server replies to a request on a new connection, through the proxy.
async fn replies(outage: &dyn Outage, request: &[u8]) -> bool {
    let mut stream = connect(outage).await;
    let mut reply = [0];
    let asked = async {
        stream.write_all(request).await?;
        stream.read(&mut reply).await
    };
    // A frozen server gives no reply: the limit is how that is seen.
    let limited = tokio::time::timeout(Duration::from_secs(1), asked).await;
    matches!(limited, Ok(Ok(1)))
}

async fn every_fault_begins_and_ends(outage: &mut dyn Outage, request: &[u8]) {
    assert!(replies(outage, request).await);
    for fault in Fault::ALL {
        outage.begin(fault).await.unwrap();
        let still_replies = replies(outage, request).await;
        assert_eq!(still_replies, fault == Fault::Fill, "{fault:?}");
        outage.restore().await.unwrap();
        assert!(replies(outage, request).await, "after {fault:?}");
    }
    // One fault ends the one before.
    outage.freeze().await.unwrap();
    outage.cut().await.unwrap();
    outage.restore().await.unwrap();
    assert!(replies(outage, request).await);
}

#[tokio::test]
async fn redis_can_be_killed_cut_frozen_and_filled() {
    let mut outage = RedisOutage::start().await.unwrap();
    every_fault_begins_and_ends(&mut outage, b"PING\r\n").await;
    let set = ["SET", "key", "value"];
    outage.fill().await.unwrap();
    let refused = outage.server().command(&set).unwrap_err();
    assert!(refused.to_string().contains("OOM"), "{refused}");
    outage.restore().await.unwrap();
    outage.server().command(&set).unwrap();
    // It is durable.
    outage.kill().await.unwrap();
    outage.restore().await.unwrap();
    assert_eq!(outage.server().command(&["GET", "key"]).unwrap(), "value");
}

#[tokio::test]
async fn postgres_can_be_killed_cut_frozen_and_filled() {
    let mut outage = PostgresOutage::start().await.unwrap();
    // A request for TLS, which is refused with one byte.
    let request = [0, 0, 0, 8, 4, 210, 22, 47];
    every_fault_begins_and_ends(&mut outage, &request).await;
    let server = outage.server();
    server.execute("CREATE TABLE item (n int)").unwrap();
    let insert = "INSERT INTO item VALUES (1)";
    outage.fill().await.unwrap();
    let refused = outage.server().execute(insert).unwrap_err();
    assert!(refused.to_string().contains("no space left"), "{refused}");
    let count = "SELECT count(*) FROM item";
    assert_eq!(outage.server().execute(count).unwrap(), "0");
    outage.restore().await.unwrap();
    outage.server().execute(insert).unwrap();
    outage.kill().await.unwrap();
    outage.restore().await.unwrap();
    assert_eq!(outage.server().execute(count).unwrap(), "1");
    assert_eq!(outage.server().execute("SHOW fsync").unwrap(), "on");
}

#[tokio::test]
async fn a_postgres_standby_lags_until_it_is_promoted() {
    let primary = PostgresServer::start().unwrap();
    let standby = primary.start_standby(Duration::from_secs(3600)).unwrap();
    primary
        .execute("CREATE TABLE item (n int); INSERT INTO item VALUES (1)")
        .unwrap();
    let refused = standby.execute("SELECT count(*) FROM item").unwrap_err();
    assert!(refused.to_string().contains("does not exist"), "{refused}");
    assert_eq!(standby.execute("SELECT pg_is_in_recovery()").unwrap(), "t");
    let received = "SELECT pg_wal_lsn_diff(flush_lsn, pg_current_wal_lsn()) >= 0
        FROM pg_stat_replication";
    while primary.execute(received).unwrap() != "t" {}
    standby.promote().unwrap();
    assert_eq!(standby.execute("SELECT count(*) FROM item").unwrap(), "1");
    standby.execute("INSERT INTO item VALUES (2)").unwrap();
}

#[tokio::test]
async fn a_redis_can_be_demoted_and_promoted() {
    let server = RedisServer::start().await.unwrap();
    let set = ["SET", "key", "value"];
    server.demote().unwrap();
    let refused = server.command(&set).unwrap_err();
    assert!(refused.to_string().contains("READONLY"), "{refused}");
    server.promote().unwrap();
    server.command(&set).unwrap();
}
