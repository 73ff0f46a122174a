use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use redis::{AsyncConnectionConfig, Client, ConnectionAddr, PushInfo, PushKind, TlsCertificates};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use tidings_reconnect::{Obstacle, Timing, is_this_machine};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{Connection, Error, reason, url};

/// Where Redis is, and how long to wait for it.
#[derive(Clone)]
#[must_use]
pub struct Config {
    client: Client,
    timing: Timing,
}

impl Config {
    /// Reads a URL: `redis://user:password@host:port/`, `rediss://…` for TLS, or
    /// `redis+unix:///path`. TLS trusts the certificates of the operating system.
    ///
    /// TLS is by rustls with the [`CryptoProvider`] of the process. If the program has installed none, connecting
    /// installs aws-lc-rs: a program that wants another installs it earlier.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when it is not such a URL.
    pub fn new(url: &str) -> Result<Self, Error> {
        let invalid = |source| Error::Invalid {
            field: "the URL of Redis",
            expected: "`redis://host:port/`",
            source: Some(source),
        };
        let info = url::read(url).map_err(|fault| invalid(fault.into()))?;
        Ok(Self {
            client: Client::open(info).map_err(|error| invalid(error.into()))?,
            timing: Timing::default(),
        })
    }

    /// Trusts these certificates, in PEM, instead of those of the operating system.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when they are not certificates, or the URL does not begin with `rediss:`.
    pub fn with_root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Result<Self, Error> {
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: Some(pem.into()),
        };
        let info = self.client.get_connection_info().clone();
        self.client =
            Client::build_with_tls(info, certificates).map_err(|_says_no_more| Error::Invalid {
                field: "root_certificates",
                expected: "certificates in PEM, with a URL that begins with `rediss:`",
                source: None,
            })?;
        Ok(self)
    }

    /// Sets how long connecting, or one reply, may take. The default is five seconds. A command that
    /// blocks needs a connection whose limit is longer than the command blocks.
    pub fn with_reply_limit(mut self, limit: Duration) -> Self {
        self.timing.reply_limit = limit;
        self
    }

    /// Sets how often a connection is checked: one that listens by itself, one for calls with the next call. The
    /// default is three seconds, the least is a millisecond.
    ///
    /// A break that is not reported, such as a pulled cable, is noticed after this time and the reply
    /// limit.
    pub fn with_health_interval(mut self, interval: Duration) -> Self {
        self.timing.health_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// The number of the database. Channels do not belong to one.
    pub fn database(&self) -> i64 {
        self.client.get_connection_info().redis_settings().db()
    }

    /// The host, if it may be another machine and connections to it have no TLS: what is sent can be read
    /// on the way, also the password.
    pub fn plain_host(&self) -> Option<&str> {
        match self.client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, _) => Some(&**host).filter(|host| !is_this_machine(host)),
            _ => None,
        }
    }

    /// How long connecting, or one reply, may take.
    pub fn reply_limit(&self) -> Duration {
        self.timing.reply_limit
    }

    /// How often a connection is checked.
    pub fn health_interval(&self) -> Duration {
        self.timing.health_interval
    }

    /// Both limits.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Connects, and calls `push` with each message that is not a reply. The task that reads calls it, in
    /// order; it must not wait.
    ///
    /// # Errors
    ///
    /// [`Error::Unsent`] when there is no connection within the reply limit,
    /// [`Error::NotPrimary`] when the server is a replica.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which the task that drives the connection needs.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves no connection behind.
    pub async fn connect(
        &self,
        push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Connection, Error> {
        if matches!(
            self.client.get_connection_info().addr(),
            ConnectionAddr::TcpTls { .. }
        ) {
            ensure_crypto_provider();
        }
        let broken = CancellationToken::new();
        let watched = broken.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timing.reply_limit))
            // The default of half a second is less than a busy server takes.
            .set_response_timeout(Some(self.timing.reply_limit))
            .set_push_sender(move |info: PushInfo| {
                if info.kind == PushKind::Disconnection {
                    watched.cancel();
                } else {
                    push(info);
                }
                Ok::<(), Infallible>(())
            });
        let connecting = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        let connecting = async {
            let connected = connecting.await;
            let multiplexed = connected
                .map_err(|error| Error::Unsent(reason::of_connecting(error, self.database())))?;
            let connection = Connection::new(multiplexed, broken);
            match connection.ping().await {
                Err(Error::NoReply(reason)) => Err(Error::Unsent(reason)),
                pinged => pinged.map(|()| connection),
            }
        };
        // The library's own limit does not cover the greeting.
        match timeout(self.timing.reply_limit, connecting).await {
            Ok(connected) => connected,
            Err(_elapsed) => Err(Error::Unsent(Obstacle::Late.into())),
        }
    }
}

/// The `redis` crate takes the provider of the process, and panics if there is none and rustls was built with several.
fn ensure_crypto_provider() {
    if CryptoProvider::get_default().is_none() {
        // An error means that another thread has installed one.
        let _installed = aws_lc_rs::default_provider().install_default();
    }
}

impl fmt::Debug for Config {
    /// Leaves out the URL, which may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_url_is_refused_without_showing_it() {
        for url in ["", "127.0.0.1", "http://:secret@host/", "redis://:secret@"] {
            let error = Config::new(url).unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
            assert!(!format!("{error} {error:?} {source}").contains("secret"));
        }
        let shown = format!("{:?}", Config::new("redis://:secret@host/").unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn certificates_need_a_url_that_uses_them() {
        let plain = Config::new("redis://host/").unwrap();
        let error = plain.with_root_certificates("").unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    }
}
