use std::path::Path;

use tidings_postgres::{Config, Error};
use tidings_test_support::{Proxy, Tls, Welcome};

use crate::postgres::support::{url, within};

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
    let connected = within("a connection", config.connect()).await;
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
