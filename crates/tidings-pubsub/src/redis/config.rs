use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Client, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, TlsCertificates};

use crate::Error;

/// Where Redis is, and how patient to be with it.
#[derive(Clone)]
#[must_use]
pub struct RedisConfig {
    pub(super) client: Client,
    pub(super) prefix: Arc<str>,
    pub(super) answer_limit: Duration,
    pub(super) health_interval: Duration,
}

impl RedisConfig {
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
            prefix: "tidings".into(),
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

    /// Sets what channels begin with, before a colon. The default is `tidings`.
    pub fn with_prefix(mut self, prefix: impl Into<Arc<str>>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets how long connecting, or one answer, may take. The default is five seconds.
    pub fn with_answer_limit(mut self, limit: Duration) -> Self {
        self.answer_limit = limit;
        self
    }

    /// Sets how often to ask whether the server is still there. The default is three seconds, the
    /// least is a millisecond.
    ///
    /// A break that nobody reports, such as a cable that was pulled, is noticed after this time and
    /// the limit for an answer.
    pub fn with_health_interval(mut self, interval: Duration) -> Self {
        self.health_interval = interval.max(Duration::from_millis(1));
        self
    }
}

impl fmt::Debug for RedisConfig {
    /// Leaves out the URL, which may have a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("prefix", &self.prefix)
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
            let error = RedisConfig::new(url).unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
            assert!(!format!("{error} {error:?} {source}").contains("secret"));
        }
        let shown = format!("{:?}", RedisConfig::new("redis://:secret@host/").unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn certificates_need_a_url_that_uses_them() {
        let plain = RedisConfig::new("redis://host/").unwrap();
        let error = plain.with_root_certificates("").unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    }
}
