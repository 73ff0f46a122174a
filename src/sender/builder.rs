use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::Resolve;

use super::Sender;
use super::phases::ConnectTimer;
use crate::resolver::{GuardedResolver, SystemResolver};
use crate::{AddressPolicy, ConfigError};

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle connections kept per host. Fewer than there are workers would make new connections all the
/// time, because many answers come at once; these are closed after 90 seconds without use.
const MAX_IDLE_PER_HOST: usize = 256;

const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Describes a [`Sender`].
#[must_use]
pub struct SenderBuilder {
    client: Option<reqwest::Client>,
    policy: AddressPolicy,
    connect_timeout: Duration,
    lookup: Option<Arc<dyn Resolve>>,
    root_certificates: Vec<Vec<u8>>,
}

impl SenderBuilder {
    pub(super) fn new() -> Self {
        Self {
            client: None,
            policy: AddressPolicy::Any,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            lookup: None,
            root_certificates: Vec::new(),
        }
    }

    /// Says which addresses requests may go to. The default is [`AddressPolicy::Any`], for URLs
    /// that the owner of the sender chose; strangers' URLs need [`AddressPolicy::PublicOnly`].
    pub fn address_policy(mut self, policy: AddressPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets how long a connection may take, the lookup of its name and TLS included. More than
    /// zero; the default is 5 seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Trusts the certificate authorities of a text in PEM, which may hold several, besides those
    /// of the system. Calling it again adds more.
    ///
    /// Use it for receivers inside a company. It takes the feature `rustls` or `native-tls`.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates.push(pem.into());
        self
    }

    /// Looks names up in another way than the system does.
    ///
    /// Its answers are cached and checked like those of the system: 30 seconds for addresses, 10
    /// for failures, and the policy decides at each new connection.
    pub fn dns_resolver(mut self, resolver: impl Resolve + 'static) -> Self {
        self.lookup = Some(Arc::new(resolver));
        self
    }

    /// Sends through an HTTP client of your own, for its TLS, proxy or pool settings.
    ///
    /// Such a client does as it was told: build it without redirects, retries and decompression,
    /// and with a connect timeout. One that follows a redirect all the same fails the attempt as
    /// [`Redirected`](crate::ErrorKind::Redirected), because what answered is not the endpoint;
    /// the body of the message does not go there. It cannot be combined with
    /// [`AddressPolicy::PublicOnly`], because it looks names up by itself, nor with the other
    /// settings of a connection.
    pub fn http_client(mut self, client: reqwest::Client) -> Self {
        self.client = Some(client);
        self
    }

    /// Builds the sender.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the field:
    /// - `connect_timeout` when it is zero;
    /// - `root_certificates` when one cannot be read, there is none in the text, or TLS is not
    ///   among the features;
    /// - `http_client` when there is one together with an address policy other than
    ///   [`AddressPolicy::Any`], with root certificates or with a resolver, or when none can be
    ///   built, for instance because TLS cannot be set up.
    pub fn build(self) -> Result<Sender, ConfigError> {
        if self.connect_timeout.is_zero() {
            return Err(ConfigError::new("connect_timeout", "more than zero"));
        }
        if let Some(client) = self.client {
            if self.policy != AddressPolicy::Any
                || self.lookup.is_some()
                || !self.root_certificates.is_empty()
            {
                return Err(ConfigError::new(
                    "http_client",
                    "none together with an address policy, a resolver or root certificates",
                ));
            }
            return Ok(Sender {
                client,
                policy: self.policy,
                resolver: None,
            });
        }
        let lookup = self
            .lookup
            .unwrap_or_else(|| Arc::new(SystemResolver::new()));
        let resolver = GuardedResolver::new(self.policy, lookup);
        let builder = hardened(self.connect_timeout, resolver.clone());
        let client = trusting(builder, &self.root_certificates)?
            .build()
            .map_err(|source| {
                ConfigError::new("http_client", "a working TLS setup").with_source(source)
            })?;
        Ok(Sender {
            client,
            policy: self.policy,
            resolver: Some(resolver),
        })
    }
}

/// Everything that a stranger's answer could use against the sender is off, also what features of
/// the HTTP client switch on by default and another package in the same program may have enabled.
fn hardened(connect_timeout: Duration, resolver: GuardedResolver) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder();
    // Which TLS it is must not hang on what other packages in the program enable.
    #[cfg(feature = "rustls")]
    let builder = builder.tls_backend_rustls();
    builder
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        // A proxy would look names up in our place and go where it likes.
        .no_proxy()
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .no_hickory_dns()
        .dns_resolver(Arc::new(resolver))
        .connector_layer(ConnectTimer)
        .connect_timeout(connect_timeout)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .http2_keep_alive_timeout(Duration::from_secs(10))
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn trusting(
    builder: reqwest::ClientBuilder,
    texts: &[Vec<u8>],
) -> Result<reqwest::ClientBuilder, ConfigError> {
    let expected = || ConfigError::new("root_certificates", "certificates in PEM");
    let mut certificates = Vec::new();
    for text in texts {
        let found = reqwest::Certificate::from_pem_bundle(text)
            .map_err(|source| expected().with_source(source))?;
        if found.is_empty() {
            return Err(expected());
        }
        certificates.extend(found);
    }
    if certificates.is_empty() {
        return Ok(builder);
    }
    // Whether they are certificates shows only when a client is made of them.
    reqwest::Client::builder()
        .tls_certs_only(certificates.clone())
        .build()
        .map_err(|source| expected().with_source(source))?;
    Ok(builder.tls_certs_merge(certificates))
}

#[cfg(not(any(feature = "rustls", feature = "native-tls")))]
fn trusting(
    builder: reqwest::ClientBuilder,
    texts: &[Vec<u8>],
) -> Result<reqwest::ClientBuilder, ConfigError> {
    if texts.is_empty() {
        Ok(builder)
    } else {
        Err(ConfigError::new(
            "root_certificates",
            "none without the feature `rustls` or `native-tls`",
        ))
    }
}

impl fmt::Debug for SenderBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SenderBuilder")
            .field("client", &self.client)
            .field("policy", &self.policy)
            .field("connect_timeout", &self.connect_timeout)
            .field("root_certificates", &self.root_certificates.len())
            .finish_non_exhaustive()
    }
}
