use std::path::Path;

use tidings_postgres::{Config, Error};
use tidings_test_support::{PostgresServer, Proxy, Tls, Welcome, soon};

use crate::postgres::support::url;

/// A way to the server that has TLS, and the file of the authority to trust.
async fn proxy(tls: Tls, folder: &Path) -> (Proxy, String) {
    let (authority, acceptor) = tls.acceptor().unwrap();
    let path = folder.join("authority.pem");
    std::fs::write(&path, authority.pem()).unwrap();
    let welcome = Welcome::TlsOnRequest(acceptor);
    let proxy = Proxy::welcoming(&url(), welcome).await.unwrap();
    (proxy, path.display().to_string().replace('/', "%2F"))
}

async fn connects(proxy: &Proxy, parameters: &str) -> bool {
    let config = Config::new(&format!("{}?{parameters}", proxy.url())).unwrap();
    let connected = soon("a connection", config.connect()).await;
    if let Err(error) = &connected {
        assert!(matches!(error, Error::Unsent(_)), "{error:?}");
    }
    connected.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_urls_say_what_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    for (tls, mode, expected) in [
        (Tls::Valid, "require", true),
        (Tls::Valid, "verify-ca", true),
        (Tls::Valid, "verify-full", true),
        (Tls::WrongName, "require", true),
        (Tls::WrongName, "verify-ca", true),
        (Tls::WrongName, "verify-full", false),
        (Tls::UnknownAuthority, "require", false),
        (Tls::UnknownAuthority, "verify-ca", false),
        (Tls::UnknownAuthority, "verify-full", false),
        (Tls::Authority, "require", false),
        (Tls::Authority, "verify-ca", false),
        (Tls::Authority, "verify-full", false),
        (Tls::Expired, "verify-ca", false),
        (Tls::Expired, "verify-full", false),
    ] {
        let (proxy, roots) = proxy(tls, folder.path()).await;
        let with_roots = format!("sslmode={mode}&sslrootcert={roots}");
        let connected = connects(&proxy, &with_roots).await;
        assert_eq!(connected, expected, "{tls:?} {mode}");
        // The operating system trusts none of them.
        let without_roots = format!("sslmode={mode}");
        assert!(!connects(&proxy, &without_roots).await, "{tls:?} {mode}");
    }
}

/// A login with a password says for which server it is: one in between, whatever certificate it has, cannot
/// pass it on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_are_bound_to_the_certificate_of_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let (server, address, authority) = PostgresServer::start_with_tls().unwrap();
    let role = "CREATE ROLE bound LOGIN PASSWORD 'secret'";
    server.execute(role).unwrap();
    let path = folder.path().join("authority.pem");
    std::fs::write(&path, authority.pem()).unwrap();
    let roots = path.display().to_string().replace('/', "%2F");
    let url = |address: &str, binding: &str| {
        format!(
            "postgres://bound:secret@{address}/postgres?sslmode=verify-ca&sslrootcert={roots}&channel_binding={binding}"
        )
    };
    for binding in ["require", "prefer", "disable"] {
        let config = Config::new(&url(&address, binding)).unwrap();
        soon("a connection", config.connect()).await.unwrap();
    }

    // It takes off the TLS of the client, and its own connection has none.
    let (between, roots_between) = proxy(Tls::Valid, folder.path()).await;
    let between = between.url().replace("postgres@", "bound:secret@");
    let between =
        format!("{between}?sslmode=verify-ca&sslrootcert={roots_between}&channel_binding=require");
    let config = Config::new(&between).unwrap();
    let refused = soon("a refusal", config.connect()).await.unwrap_err();
    assert!(matches!(refused, Error::Unsent(_)), "{refused:?}");
}

/// As for libpq, whose default is `prefer`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_a_url_that_does_not_demand_tls_uses_it_where_there_is_tls() {
    const HAS_TLS: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let (server, address, authority) = PostgresServer::start_with_tls().unwrap();
    server
        .execute("CREATE ROLE anna LOGIN PASSWORD 'secret'")
        .unwrap();
    let url = format!("postgres://anna:secret@{address}/postgres");
    let by_address = format!("postgres://anna:secret@/postgres?hostaddr={address}");
    for url in [
        url.clone(),
        format!("{url}?sslmode=prefer"),
        format!("{url}?sslmode=allow"),
        by_address,
    ] {
        let client = Config::new(&url).unwrap().connect().await;
        let client = client.unwrap_or_else(|error| panic!("{url}: {error:?}"));
        let row = client.query_one(HAS_TLS, &[]).await.unwrap();
        assert!(row.get::<_, bool>(0), "{url}");
        // Asking to cancel is one more connection with TLS.
        client.cancel().await.unwrap();
    }

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authority.pem");
    for (authority, expected) in [(authority, true), (Tls::Valid.acceptor().unwrap().0, false)] {
        std::fs::write(&path, authority.pem()).unwrap();
        let named = format!("postgres://anna:secret@localhost/postgres?hostaddr={address}");
        let config = Config::new(&format!("{named}&sslrootcert={}", path.display())).unwrap();
        assert_eq!(config.connect().await.is_ok(), expected);
    }
    let refused = Config::new(&format!("{url}?sslmode=disable")).unwrap();
    let refused = refused.connect().await.unwrap_err();
    assert!(matches!(refused, Error::Unsent(_)), "{refused:?}");
}

/// As for libpq: what demands no TLS does not fail by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_a_url_that_does_not_demand_tls_does_without_where_it_cannot_be_made() {
    let (server, address, authority) = PostgresServer::start_with_tls().unwrap();
    server
        .execute("CREATE ROLE anna LOGIN PASSWORD 'secret'")
        .unwrap();
    let rules = |connections: &str| {
        let rules = format!("local all all trust\n{connections} all all 127.0.0.0/8 trust\n");
        std::fs::write(server.folder().join("data/pg_hba.conf"), rules).unwrap();
        server.execute("SELECT pg_reload_conf()").unwrap();
    };
    let url = format!("postgres://anna:secret@{address}/postgres");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authority.pem");
    std::fs::write(&path, authority.pem()).unwrap();
    let verified = format!(
        "postgres://anna:secret@localhost/postgres?hostaddr={address}&sslrootcert={}",
        path.display()
    );
    let demanded = format!("{verified}&sslmode=verify-full");
    let connect = async |url: &str| Config::new(url).unwrap().connect().await;

    // The server takes users without TLS alone. Its settings are read again soon, not at once.
    rules("hostnossl");
    while connect(&format!("{url}?sslmode=disable")).await.is_err() {}
    connect(&url).await.unwrap().cancel().await.unwrap();
    for url in [&demanded, &verified] {
        let refused = connect(url).await.err().unwrap();
        assert!(matches!(refused, Error::Unsent(_)), "{refused:?}");
    }

    // It knows no version of TLS that we do.
    rules("host");
    server
        .execute("ALTER SYSTEM SET ssl_min_protocol_version = 'TLSv1'")
        .unwrap();
    server
        .execute("ALTER SYSTEM SET ssl_max_protocol_version = 'TLSv1.1'")
        .unwrap();
    server.execute("SELECT pg_reload_conf()").unwrap();
    while connect(&demanded).await.is_ok() {}
    connect(&url).await.unwrap().cancel().await.unwrap();
    assert!(connect(&verified).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_to_another_machine_without_tls_is_known_as_such() {
    let plain = |url: String| async move {
        let client = Config::new(&url).unwrap().connect().await.unwrap();
        client.plain_host().map(str::to_owned)
    };
    assert_eq!(plain(url()).await, None);
    // It leads to this machine, and is no address of loopback.
    let elsewhere = url().replace("127.0.0.1", "0.0.0.0");
    assert_eq!(plain(elsewhere.clone()).await.as_deref(), Some("0.0.0.0"));

    let acceptor = Tls::UnknownAuthority.acceptor().unwrap().1;
    let proxy = Proxy::welcoming(&url(), Welcome::TlsOnRequest(acceptor)).await;
    let proxy = proxy.unwrap();
    let elsewhere = proxy.url().replace("127.0.0.1", "0.0.0.0");
    assert_eq!(plain(elsewhere).await, None);
}
