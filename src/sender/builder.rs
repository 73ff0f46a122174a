use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::Resolve;

use super::connector::{Connector, Tcp};
use super::transport::Transport;
use super::{Sender, tls};
use crate::resolver::{GuardedResolver, SystemResolver};
use crate::{AddressPolicy, ConfigError};

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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
    ///   [`AddressPolicy::Any`], with root certificates or with a resolver, or when there is none
    ///   and TLS cannot be set up.
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
                transport: Transport::Given(client),
                policy: self.policy,
                resolver: None,
            });
        }
        let lookup = self
            .lookup
            .unwrap_or_else(|| Arc::new(SystemResolver::new()));
        let resolver = GuardedResolver::new(self.policy, lookup);
        let tcp = Tcp::new(resolver.clone(), self.connect_timeout);
        let secured = tls::secured(tcp, &self.root_certificates)?;
        Ok(Sender {
            transport: Transport::own(Connector::new(secured, self.connect_timeout)),
            policy: self.policy,
            resolver: Some(resolver),
        })
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
