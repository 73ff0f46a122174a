use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, PushInfo,
    PushKind, TlsCertificates,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{Connection, Error};

/// Where Redis is, and how patient to be with it.
#[derive(Clone)]
#[must_use]
pub struct Config {
    client: Client,
    answer_limit: Duration,
    health_interval: Duration,
}

impl Config {
    /// Reads a URL: `redis://user:password@host:port/`, `rediss://…` for TLS, or
    /// `redis+unix:///path`. TLS trusts the certificates of the operating system.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when it is none.
    pub fn new(url: &str) -> Result<Self, Error> {
        let info = resp3(url)?;
        Ok(Self {
            client: Client::open(info).map_err(invalid_url)?,
            answer_limit: Duration::from_secs(5),
            health_interval: Duration::from_secs(3),
        })
    }

    /// Trusts these certificates, in PEM, instead of those of the operating system.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when they are none, or the URL is not one of `rediss`.
    pub fn with_root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Result<Self, Error> {
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: Some(pem.into()),
        };
        let info = self.client.get_connection_info().clone();
        self.client =
            Client::build_with_tls(info, certificates).map_err(|source| Error::Invalid {
                field: "root_certificates",
                expected: "certificates in PEM, with a URL that begins with `rediss:`",
                source: Arc::new(source),
            })?;
        Ok(self)
    }

    /// Sets how long connecting, or one answer, may take. The default is five seconds. A command that
    /// blocks needs a connection with a limit that is longer than it blocks.
    pub fn with_answer_limit(mut self, limit: Duration) -> Self {
        self.answer_limit = limit;
        self
    }

    /// Sets how often whoever listens asks whether the server is still there. The default is three
    /// seconds, the least is a millisecond.
    ///
    /// A break that nobody reports, such as a cable that was pulled, is noticed after this time and
    /// the limit for an answer.
    pub fn with_health_interval(mut self, interval: Duration) -> Self {
        self.health_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// How long connecting, or one answer, may take.
    pub fn answer_limit(&self) -> Duration {
        self.answer_limit
    }

    /// How often whoever listens asks whether the server is still there.
    pub fn health_interval(&self) -> Duration {
        self.health_interval
    }

    /// Connects, and calls `push` with what the server sends unasked. It is called by the task that
    /// reads, in order, and must not wait.
    ///
    /// # Errors
    ///
    /// [`Error::Unsent`] when there is no connection within the limit for an answer.
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
        let broken = CancellationToken::new();
        let watched = broken.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.answer_limit))
            // The default of half a second is less than a busy server takes.
            .set_response_timeout(Some(self.answer_limit))
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
        // The library's own limit does not cover the greeting.
        match timeout(self.answer_limit, connecting).await {
            Ok(connected) => {
                let multiplexed = connected.map_err(Error::unsent)?;
                Ok(Connection::new(multiplexed, broken))
            }
            Err(elapsed) => Err(Error::unsent(elapsed)),
        }
    }
}

impl fmt::Debug for Config {
    /// Leaves out the URL, which may have a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("answer_limit", &self.answer_limit)
            .field("health_interval", &self.health_interval)
            .finish_non_exhaustive()
    }
}

/// Messages can share a connection with answers from RESP3 on.
fn resp3(url: &str) -> Result<ConnectionInfo, Error> {
    let info = url.into_connection_info().map_err(invalid_url)?;
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3);
    Ok(info.set_redis_settings(settings))
}

fn invalid_url(source: redis::RedisError) -> Error {
    Error::Invalid {
        field: "the URL of Redis",
        expected: "`redis://host:port/`",
        source: Arc::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_url_is_refused_without_showing_it() {
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
