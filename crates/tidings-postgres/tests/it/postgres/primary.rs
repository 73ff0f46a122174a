use std::time::Duration;

use tidings_postgres::{Config, Error};
use tidings_test_support::{PgBouncer, PostgresServer, Proxy, soon};

use crate::postgres::support::{database, execute, number};

const IN_RECOVERY: &str = "SELECT pg_is_in_recovery()::int::bigint";

#[tokio::test]
async fn regression_a_standby_is_not_connected_to() {
    let primary = PostgresServer::start().unwrap();
    let standby = primary.start_standby(Duration::ZERO).unwrap();
    // As a name does that leads to the wrong server during a failover.
    let proxy = Proxy::start(&standby.url()).await.unwrap();
    let database = database(proxy.url());
    let asked = database.run(|client| async move { client.batch_execute("").await });
    let refused = soon("a reply", asked).await.unwrap_err();
    assert!(matches!(refused, Error::Unsent(_)), "{refused:?}");
    let refused = soon("a reply", database.config().listen()).await;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, Error::Unsent(_)), "{refused:?}");

    proxy.lead_to(&primary.url()).unwrap();
    assert_eq!(number(&database, IN_RECOVERY).await, 0);
    database.config().listen().await.unwrap();

    // After the failover it is the other way round.
    primary.crash().unwrap();
    standby.promote().unwrap();
    proxy.lead_to(&standby.url()).unwrap();
    database.disconnect();
    execute(&database, "CREATE TABLE item (n bigint)").await;
}

#[tokio::test]
async fn of_several_hosts_the_primary_is_found_and_a_standby_only_if_asked_for() {
    let primary = PostgresServer::start().unwrap();
    let standby = primary.start_standby(Duration::ZERO).unwrap();
    let host = |server: &PostgresServer| server.folder().display().to_string().replace('/', "%2F");
    for hosts in [[&standby, &primary], [&primary, &standby]] {
        let url = format!(
            "postgres://postgres@{},{}/postgres",
            host(hosts[0]),
            host(hosts[1])
        );
        let found = number(&database(&url), IN_RECOVERY).await;
        assert_eq!(found, 0, "{url}");
    }
    let any = format!("{}?target_session_attrs=any", standby.url());
    assert_eq!(number(&database(&any), IN_RECOVERY).await, 1);
}

/// A pooler keeps its clients when its server has become a standby.
#[tokio::test]
async fn behind_a_pooler_a_standby_is_found_out_by_its_refusal() {
    let primary = PostgresServer::start().unwrap();
    let standby = primary.start_standby(Duration::ZERO).unwrap();
    let pooler = PgBouncer::start(&standby, 2).await.unwrap();
    let proxy = Proxy::start(&pooler.url()).await.unwrap();
    let url = format!("{}?target_session_attrs=any", proxy.url());
    let config = Config::new(&url).unwrap();
    let database = tidings_postgres::Database::new(config);
    assert_eq!(number(&database, IN_RECOVERY).await, 1);
    let connections = proxy.accepted();
    let written = database
        .run(|client| async move { client.batch_execute("CREATE TABLE item (n bigint)").await });
    let refused = soon("a reply", written).await.unwrap_err();
    assert!(refused.is_read_only(), "{refused:?}");
    assert_eq!(number(&database, IN_RECOVERY).await, 1);
    assert!(proxy.accepted() > connections, "the connection was kept");
}

/// As the server of a machine that hangs does: its kernel still accepts connections.
#[tokio::test]
async fn a_host_that_says_nothing_leaves_time_for_the_others() {
    let server = PostgresServer::start().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hosts = format!("@127.0.0.1:{},", silent.local_addr().unwrap().port());
    let url = server.url().replacen('@', &hosts, 1);
    let config = Config::new(&url).unwrap();
    let config = config.with_reply_limit(Duration::from_secs(2));
    config.listen().await.unwrap();
    let database = tidings_postgres::Database::new(config);
    assert_eq!(number(&database, IN_RECOVERY).await, 0);
}
