use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::config::SslMode;

use crate::client::Client;
use crate::listening::Listening;
use crate::tls::{Stream, Tls};
use crate::{Error, client};

/// The connection as the client library makes it: whoever has it reads and writes.
pub(crate) type Connection =
    tokio_postgres::Connection<tokio_postgres::Socket, Stream<tokio_postgres::Socket>>;

/// Where PostgreSQL is, and how patient to be with it.
#[derive(Clone)]
#[must_use]
pub struct Config {
    statements: tokio_postgres::Config,
    listening: Option<tokio_postgres::Config>,
    tls: Option<Arc<rustls::ClientConfig>>,
    answer_limit: Duration,
    health_interval: Duration,
}

impl Config {
    /// Reads a URL, `postgres://user:password@host:port/database`, or a connection string of the
    /// form `host=… user=…`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when it is neither.
    pub fn new(url: &str) -> Result<Self, Error> {
        Ok(Self {
            statements: parse("the URL of PostgreSQL", url)?,
            listening: None,
            tls: None,
            answer_limit: Duration::from_secs(5),
            health_interval: Duration::from_secs(3),
        })
    }

    /// Listens at this URL, which leads to the server itself and not to a pooler. The default is to
    /// listen where everything else is done.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when it is no URL.
    pub fn with_listen_url(mut self, url: &str) -> Result<Self, Error> {
        self.listening = Some(parse("the URL to listen at", url)?);
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

    /// Connects, for statements alone. The connection is closed once nobody has it any more.
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
    pub async fn connect(&self) -> Result<Client, Error> {
        let (statements, connection) = self.open(&self.statements).await?;
        Ok(client::drive(statements, connection))
    }

    /// Connects in order to listen, at [a URL of its own](Self::with_listen_url) if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Unsent`] when there is no connection within the limit for an answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves no connection behind.
    pub async fn listen(&self) -> Result<Listening, Error> {
        let config = self.listening.as_ref().unwrap_or(&self.statements);
        let (statements, connection) = self.open(config).await?;
        Ok(Listening::new(statements, connection))
    }

    async fn open(
        &self,
        config: &tokio_postgres::Config,
    ) -> Result<(tokio_postgres::Client, Connection), Error> {
        let mut config = config.clone();
        if self.tls.is_none() && config.get_ssl_mode() == SslMode::Prefer {
            config.ssl_mode(SslMode::Disable);
        }
        let connecting = config.connect(Tls::new(self.tls.clone()));
        match tokio::time::timeout(self.answer_limit, connecting).await {
            Ok(connected) => connected.map_err(Error::unsent),
            Err(elapsed) => Err(Error::unsent(elapsed)),
        }
    }
}

impl fmt::Debug for Config {
    /// Leaves out the URLs, which may have passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("answer_limit", &self.answer_limit)
            .field("health_interval", &self.health_interval)
            .finish_non_exhaustive()
    }
}

fn parse(field: &'static str, url: &str) -> Result<tokio_postgres::Config, Error> {
    let mut config: tokio_postgres::Config = url.parse().map_err(|it| invalid(field, it))?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(invalid(field, "it names no host"));
    }
    if config.get_application_name().is_none() {
        config.application_name("tidings");
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
            let error = Config::new(url).unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
            assert!(!format!("{error} {error:?} {source}").contains("secret"));
        }
        let config = Config::new("postgres://user:secret@host/").unwrap();
        assert!(!format!("{config:?}").contains("secret"));
        let error = config.with_listen_url("nonsense").unwrap_err();
        assert!(error.to_string().contains("listen"), "{error}");
    }
}
