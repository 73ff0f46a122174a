use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use crate::Error;
use crate::postgres::tls::Tls;

/// Where PostgreSQL is, and how patient to be with it.
#[derive(Clone)]
#[must_use]
pub struct PostgresConfig {
    publish: Config,
    listen: Option<Config>,
    tls: Option<Arc<rustls::ClientConfig>>,
    pub(super) answer_limit: Duration,
    pub(super) health_interval: Duration,
    pub(super) retention: Duration,
}

impl PostgresConfig {
    /// Reads a URL, `postgres://user:password@host:port/database`, or a connection string of the
    /// form `host=… user=…`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when it is neither.
    pub fn new(url: &str) -> Result<Self, Error> {
        Ok(Self {
            publish: parse("the URL of PostgreSQL", url)?,
            listen: None,
            tls: None,
            answer_limit: Duration::from_secs(5),
            health_interval: Duration::from_secs(3),
            retention: Duration::from_secs(60),
        })
    }

    /// Listens at this URL, which leads to the server itself and not to a pooler. The default is to
    /// listen where it publishes.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when it is no URL.
    pub fn with_listen_url(mut self, url: &str) -> Result<Self, Error> {
        self.listen = Some(parse("the URL to listen at", url)?);
        Ok(self)
    }

    /// Uses TLS where the server has it, or as `sslmode` in the URL demands. Without these settings
    /// there is no TLS, and a URL that requires it cannot be connected to.
    pub fn with_tls(mut self, tls: Arc<rustls::ClientConfig>) -> Self {
        self.tls = Some(tls);
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

    /// Sets how long a message that does not fit a notification is kept for subscribers to fetch.
    /// The default is one minute.
    pub fn with_large_message_retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    pub(super) fn to_publish(&self) -> (Config, Tls) {
        self.with_or_without_tls(&self.publish)
    }

    pub(super) fn to_listen(&self) -> (Config, Tls) {
        self.with_or_without_tls(self.listen.as_ref().unwrap_or(&self.publish))
    }

    fn with_or_without_tls(&self, config: &Config) -> (Config, Tls) {
        let mut config = config.clone();
        if self.tls.is_none() && config.get_ssl_mode() == SslMode::Prefer {
            config.ssl_mode(SslMode::Disable);
        }
        (config, Tls::new(self.tls.clone()))
    }
}

impl fmt::Debug for PostgresConfig {
    /// Leaves out the URLs, which may have passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("answer_limit", &self.answer_limit)
            .field("health_interval", &self.health_interval)
            .field("retention", &self.retention)
            .finish_non_exhaustive()
    }
}

fn parse(field: &'static str, url: &str) -> Result<Config, Error> {
    let mut config: Config = url.parse().map_err(|source| invalid(field, source))?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(invalid(field, "it names no host"));
    }
    if config.get_application_name().is_none() {
        config.application_name("tidings-pubsub");
    }
    Ok(config)
}

fn invalid(
    field: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::Invalid {
        field,
        expected: "`postgres://user@host:port/database`",
        source: source.into().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_url_is_refused_without_showing_it() {
        for url in [
            "",
            "nonsense",
            "postgres://user:secret@host:port/",
            "user=me password=secret",
        ] {
            let error = PostgresConfig::new(url).unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
            assert!(!format!("{error} {error:?} {source}").contains("secret"));
        }
        let config = PostgresConfig::new("postgres://user:secret@host/").unwrap();
        assert!(!format!("{config:?}").contains("secret"));
        let error = config.with_listen_url("nonsense").unwrap_err();
        assert!(error.to_string().contains("listen"), "{error}");
    }
}
