use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Route, Sender};
use crate::resolver::{GuardedResolver, NameServers, Resolve};
use crate::transport::Transport;
use crate::transport::built_in::{
    BuiltIn, HttpVersions, LocalAddresses, Proxy, Settings, TlsSettings,
};
use crate::{AddressPolicy, ConfigError};

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Half of the descriptors that a process commonly has, which are 1024.
const DEFAULT_MAX_IDLE: usize = 512;

/// Fewer than there are workers would make new connections all the time, because many responses
/// come at once.
const DEFAULT_MAX_IDLE_PER_HOST: usize = 256;

/// Builds a [`Sender`].
#[must_use]
pub struct SenderBuilder {
    policy: AddressPolicy,
    connect_timeout: Option<Duration>,
    resolve: Option<Arc<dyn Resolve>>,
    tls: TlsSettings,
    proxy: Option<String>,
    http_versions: Option<HttpVersions>,
    local_addresses: LocalAddresses,
    idle_timeout: Option<Duration>,
    max_idle: Option<usize>,
    max_idle_per_host: Option<usize>,
    handed_in: Option<HandedIn>,
}

/// What takes the place of the built-in transport.
enum HandedIn {
    Transport(Arc<dyn Transport>),
    #[cfg(feature = "reqwest")]
    Reqwest(Box<reqwest::ClientBuilder>),
}

impl SenderBuilder {
    pub(super) fn new() -> Self {
        Self {
            policy: AddressPolicy::Any,
            connect_timeout: None,
            resolve: None,
            tls: TlsSettings::default(),
            proxy: None,
            http_versions: None,
            local_addresses: LocalAddresses::default(),
            idle_timeout: None,
            max_idle: None,
            max_idle_per_host: None,
            handed_in: None,
        }
    }

    /// Sets which addresses requests may go to. The default is [`AddressPolicy::Any`], for URLs
    /// that you trust; all others need [`AddressPolicy::PublicOnly`].
    pub fn address_policy(mut self, policy: AddressPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets how long a connection may take, resolving the name and TLS included. More than zero; the
    /// default is 5 seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Trusts the certificate authorities of a text in PEM, which may hold several, besides those
    /// of the system. Calling it again adds more.
    ///
    /// Use it for receivers inside a company. It needs the feature `rustls` or `native-tls`.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.root_certificates.push(pem.into());
        self
    }

    /// Shows a certificate to receivers that ask for one (mutual TLS): the chain, the sender's own
    /// certificate first, and its private key in PKCS #8, both in PEM.
    ///
    /// It needs the feature `rustls` or `native-tls`.
    pub fn client_certificate(
        mut self,
        chain_pem: impl Into<Vec<u8>>,
        key_pem: impl Into<Vec<u8>>,
    ) -> Self {
        self.tls.client_certificate = Some((chain_pem.into(), key_pem.into()));
        self
    }

    /// Replaces the whole TLS configuration, except for the names of the protocols (ALPN), which
    /// [`http_versions`](Self::http_versions) sets.
    #[cfg(feature = "rustls")]
    pub fn tls_config(mut self, config: rustls::ClientConfig) -> Self {
        self.tls.config = Some(config);
        self
    }

    /// Sends through an HTTP proxy, such as `http://user:password@proxy:3128`: through a tunnel
    /// (`CONNECT`) to `https` endpoints, forwarded to `http` ones. Proxies of the environment are
    /// never used.
    ///
    /// The proxy resolves the names of endpoints, so that no address policy other than
    /// [`AddressPolicy::Any`] can be kept. A proxy that cannot be reached, or replies 407 because it
    /// wants another password, counts as [`Local`](crate::ErrorKind::Local). If it replies
    /// otherwise, the endpoint may be what is down: a tunnel that it does not open is a failed
    /// connection, and what it replies for an `http` endpoint, such as 502 or 504, is taken for the
    /// endpoint's.
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.proxy = Some(url.into());
        self
    }

    /// Sets which versions of HTTP are spoken. The default is [`HttpVersions::Negotiated`].
    pub fn http_versions(mut self, versions: HttpVersions) -> Self {
        self.http_versions = Some(versions);
        self
    }

    /// Sends from this address of the machine, which receivers may know and allow. Calling it once
    /// for each version of IP sets both; without one the system chooses.
    ///
    /// An address that the machine does not have fails each attempt as
    /// [`Local`](crate::ErrorKind::Local).
    pub fn local_address(mut self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.local_addresses.v4 = Some(address),
            IpAddr::V6(address) => self.local_addresses.v6 = Some(address),
        }
        self
    }

    /// Sets how long an unused connection is kept, to within a second. More than zero; the default
    /// is 90 seconds.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// Sets how many unused connections are kept in all; those that have been unused for longest
    /// are closed first. The default is 512. 0 keeps none.
    ///
    /// Each takes a file descriptor: leave some for connections in use and for the rest of the
    /// program.
    pub fn max_idle_connections(mut self, connections: usize) -> Self {
        self.max_idle = Some(connections);
        self
    }

    /// Sets how many unused connections are kept to one host and port. The default is 256.
    pub fn max_idle_connections_per_host(mut self, connections: usize) -> Self {
        self.max_idle_per_host = Some(connections);
        self
    }

    /// Resolves names in another way than by asking the system's name servers.
    ///
    /// Results are cached and checked like those of the built-in resolver: addresses for as long as
    /// the resolver says, or for 30 seconds; failures for 10; and the policy decides at each new
    /// connection.
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.resolve = Some(Arc::new(resolver));
        self
    }

    /// Sends through an HTTP client that is built with reqwest, for settings that are missing here.
    ///
    /// It takes the builder and not a client, because redirects, retries and decompression must be
    /// off, which a client cannot be asked about: the sender turns them off. The
    /// [connect timeout](Self::connect_timeout) applies. It cannot be combined with
    /// [`AddressPolicy::PublicOnly`], because such a client resolves names by itself, nor with the
    /// other settings of a connection.
    ///
    /// A name server that does not reply counts as [`Dns`](crate::ErrorKind::Dns), and a proxy that
    /// cannot be reached or replies 407 as [`Local`](crate::ErrorKind::Local) for `https` alone: for
    /// `http` such a client reports the proxy's failures as those of the endpoint.
    #[cfg(feature = "reqwest")]
    pub fn http_client(mut self, client: reqwest::ClientBuilder) -> Self {
        self.handed_in = Some(HandedIn::Reqwest(Box::new(client)));
        self
    }

    /// Sends through a [`Transport`] of your own. It cannot be combined with an address policy other
    /// than [`AddressPolicy::Any`], which it could not keep, nor with the settings of a connection.
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.handed_in = Some(HandedIn::Transport(Arc::new(transport)));
        self
    }

    /// Builds the sender.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the field:
    /// - `connect_timeout`, `idle_timeout` when zero; `connect_timeout` beside a
    ///   [`transport`](Self::transport);
    /// - `root_certificates`, `client_certificate` when they cannot be read, or when TLS is not
    ///   among the features;
    /// - `tls_config` when there are root or client certificates as well;
    /// - `proxy` when it is not an `http` URL of a host, or when there is an address policy;
    /// - `http_client`, `transport` when there are settings that it cannot keep.
    pub fn build(mut self) -> Result<Sender, ConfigError> {
        for (field, timeout) in [
            ("connect_timeout", self.connect_timeout),
            ("idle_timeout", self.idle_timeout),
        ] {
            if timeout.is_some_and(|timeout| timeout.is_zero()) {
                return Err(ConfigError::new(field, "more than zero"));
            }
        }
        match self.handed_in.take() {
            None => self.build_built_in(),
            Some(HandedIn::Transport(transport)) => {
                self.check_nothing_else("transport")?;
                if self.connect_timeout.is_some() {
                    return Err(ConfigError::new(
                        "connect_timeout",
                        "none beside a transport, which connects by itself",
                    ));
                }
                Ok(Sender::new(Route::Other(transport), self.policy))
            }
            #[cfg(feature = "reqwest")]
            Some(HandedIn::Reqwest(client)) => {
                self.check_nothing_else("http_client")?;
                let timeout = self.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT);
                let transport = crate::transport::ReqwestTransport::new(*client, timeout)?;
                Ok(Sender::new(Route::Other(Arc::new(transport)), self.policy))
            }
        }
    }

    fn build_built_in(self) -> Result<Sender, ConfigError> {
        let proxy = self.proxy.as_deref().map(Proxy::parse).transpose()?;
        if proxy.is_some() && self.policy != AddressPolicy::Any {
            return Err(ConfigError::new(
                "proxy",
                "none beside an address policy, because the proxy resolves names",
            ));
        }
        let resolve = self
            .resolve
            .unwrap_or_else(|| Arc::new(NameServers::default()));
        let resolver = GuardedResolver::new(self.policy.clone(), self.local_addresses, resolve);
        let settings = Settings {
            connect_timeout: self.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
            tls: self.tls,
            proxy,
            http_versions: self.http_versions.unwrap_or_default(),
            local_addresses: self.local_addresses,
            idle_timeout: self.idle_timeout.unwrap_or(DEFAULT_IDLE_TIMEOUT),
            max_idle: self.max_idle.unwrap_or(DEFAULT_MAX_IDLE),
            max_idle_per_host: self.max_idle_per_host.unwrap_or(DEFAULT_MAX_IDLE_PER_HOST),
        };
        let transport = BuiltIn::new(settings, resolver)?;
        Ok(Sender::new(
            Route::BuiltIn(Box::new(transport)),
            self.policy,
        ))
    }

    /// Refuses settings that only the built-in transport can keep.
    fn check_nothing_else(&self, field: &'static str) -> Result<(), ConfigError> {
        let has_others = self.policy != AddressPolicy::Any
            || self.resolve.is_some()
            || !self.tls.is_default()
            || self.proxy.is_some()
            || self.http_versions.is_some()
            || self.local_addresses != LocalAddresses::default()
            || self.idle_timeout.is_some()
            || self.max_idle.is_some()
            || self.max_idle_per_host.is_some();
        if has_others {
            return Err(ConfigError::new(
                field,
                "none beside an address policy or a setting of the built-in transport",
            ));
        }
        Ok(())
    }
}

/// Leaves out what could be a key.
impl fmt::Debug for SenderBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SenderBuilder")
            .field("policy", &self.policy)
            .field("connect_timeout", &self.connect_timeout)
            .field("tls", &self.tls)
            .field("http_versions", &self.http_versions)
            .field("local_addresses", &self.local_addresses)
            .field("idle_timeout", &self.idle_timeout)
            .field("max_idle", &self.max_idle)
            .field("max_idle_per_host", &self.max_idle_per_host)
            .finish_non_exhaustive()
    }
}
