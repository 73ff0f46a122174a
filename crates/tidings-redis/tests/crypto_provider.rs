//! TLS in a process that has installed no provider: a process of its own, because the provider is that of all.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use tidings_redis::Config;

/// Where several providers are built in, rustls chooses none, and the `redis` crate panics. Here is one, which rustls
/// would install when it is first used: a host without an address shows who has installed it before that.
#[tokio::test]
async fn regression_connecting_with_tls_installs_a_provider_if_there_is_none() {
    for (url, is_installed) in [
        ("redis://host.invalid/", false),
        ("rediss://host.invalid/", true),
    ] {
        let connected = Config::new(url).unwrap().connect(drop).await;
        assert!(connected.is_err());
        let ours = is_installed.then(aws_lc_rs::default_provider);
        let shown = |provider: Option<&CryptoProvider>| format!("{provider:?}");
        let installed = CryptoProvider::get_default();
        assert_eq!(shown(installed.map(AsRef::as_ref)), shown(ours.as_ref()));
    }
}
