use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tidings_reconnect::{Obstacle, Timing};
use tokio_postgres::error::SqlState;

use crate::cancel::Canceller;
use crate::client::Client;
use crate::hosts::{self, Connected, Failure, Way};
use crate::listening::Listening;
use crate::tls::Stream;
use crate::url::{Target, parse};
use crate::{Error, client, reason};

/// Longest limit of a reply. The server counts such limits in milliseconds, in 32 bits.
const MAX_REPLY_LIMIT: Duration = Duration::from_millis(i32::MAX as u64);

/// The connection as the client library makes it: its owner reads and writes.
pub(crate) type RawConnection =
    tokio_postgres::Connection<tokio_postgres::Socket, Stream<tokio_postgres::Socket>>;

/// Where PostgreSQL is, how to connect to it, and how long to wait for it.
///
/// # URLs
///
/// URLs and connection strings are those of
/// [libpq](https://www.postgresql.org/docs/current/libpq-connect.html): several hosts, Unix sockets,
/// percent-encoding, `options`, `application_name` and the parameters of TCP among them. A parameter
/// that is not supported is an error that names it. These have a meaning of their own:
///
/// | parameter | means |
/// |---|---|
/// | `sslmode=disable` | no TLS |
/// | `allow`, `prefer` (default) | TLS if the server has it, otherwise none. The certificate is verified as for `verify-full`, but only if there is an `sslrootcert`. Without one, there is no TLS either where its handshake fails, or the server admits this user without it alone |
/// | `require`, `verify-full` | TLS; the certificate must be trusted and name the host |
/// | `verify-ca` | TLS; the certificate must be trusted, whatever name is in it |
/// | `sslrootcert` | the authorities to trust, a file in PEM; without it, or with `system`, those of the operating system. With a file, `require` is `verify-ca`, as for libpq |
/// | `sslcert`, `sslkey` | the client's certificate and key, files in PEM |
/// | `channel_binding` | `prefer` (default): a login with a password is bound to the certificate of the server if the server can do that, so that no other one can pass it on; `require` fails otherwise, and demands an `sslmode` with TLS; `disable`. The certificate must be signed by ECDSA, or by RSA without PSS |
/// | `target_session_attrs` | `read-write` (default) and `primary` pass over servers that take no writes, such as standbys; `any` takes every server |
#[derive(Clone)]
#[must_use]
pub struct Config {
    statements: Target,
    listening: Option<Target>,
    tls: Option<Arc<rustls::ClientConfig>>,
    timing: Timing,
}

impl Config {
    /// Reads a URL, `postgres://user:password@host:port/database`, or a connection string of the
    /// form `host=… user=…`, and the files that it names.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when it is neither, or a parameter is not supported.
    pub fn new(url: &str) -> Result<Self, Error> {
        Ok(Self {
            statements: parse("the URL of PostgreSQL", url)?,
            listening: None,
            tls: None,
            timing: Timing::default(),
        })
    }

    /// Listens at this URL, which must lead to the server itself and not to a pooler. The default is
    /// the URL of everything else.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn with_listen_url(mut self, url: &str) -> Result<Self, Error> {
        self.listening = Some(parse("the URL to listen at", url)?);
        Ok(self)
    }

    /// Uses these TLS settings instead of those that the URL describes, unless its `sslmode` is `disable`.
    pub fn with_tls(mut self, tls: Arc<rustls::ClientConfig>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets how long connecting, or one reply, may take; at most 24 days. The default is five seconds.
    pub fn with_reply_limit(mut self, limit: Duration) -> Self {
        self.timing.reply_limit = limit.min(MAX_REPLY_LIMIT);
        self
    }

    /// Sets how often a connection that listens is checked. The default is three seconds, the least is
    /// a millisecond.
    ///
    /// A break that is not reported, such as a pulled cable, is noticed after this time and the reply
    /// limit.
    pub fn with_health_interval(mut self, interval: Duration) -> Self {
        self.timing.health_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// How long connecting, or one reply, may take.
    pub fn reply_limit(&self) -> Duration {
        self.timing.reply_limit
    }

    /// Both limits.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// What begins a transaction of several statements, each of which sees what was committed before it,
    /// whatever the defaults of the session are.
    ///
    /// If the next statement does not come within three fifths of the [reply limit](Self::reply_limit), the
    /// server ends the transaction and its session. Otherwise the locks of a client that is cut off would
    /// stay for as long as its connection, which can be hours. Others that wait for a lock as long as for
    /// a reply get it in time.
    pub fn begin(&self) -> String {
        let limit = (self.timing.reply_limit * 3 / 5).as_millis().max(1);
        format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
             SET LOCAL idle_in_transaction_session_timeout = {limit};"
        )
    }

    /// Connects, for statements. The connection is closed when the [`Client`] is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Unsent`] when there is no connection within the reply limit, or only to a server that
    /// takes no writes.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which the task that drives the connection needs.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves no connection behind.
    pub async fn connect(&self) -> Result<Client, Error> {
        let statements = &self.statements;
        self.open_client(statements, statements.config.clone())
            .await
            .map_err(Error::from)
    }

    /// Connects for statements that may take up to the reply limit: the server ends those that take
    /// longer, also when the client cannot cancel them. `false` if the server refuses such a limit, as
    /// poolers do; it is not asked for then.
    pub(crate) async fn connect_limited(&self, with_limit: bool) -> Result<(Client, bool), Error> {
        let target = &self.statements;
        let given = target.config.get_options().unwrap_or_default();
        if with_limit && !given.contains("statement_timeout") {
            let mut config = target.config.clone();
            let limit = self.timing.reply_limit.as_millis().max(1);
            config.options(format!("{given} -c statement_timeout={limit}"));
            match self.open_client(target, config).await {
                Ok(client) => return Ok((client, true)),
                Err(Failure::Library(error))
                    if error.code() == Some(&SqlState::PROTOCOL_VIOLATION) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok((self.connect().await?, false))
    }

    /// Connects in order to listen, at [a URL of its own](Self::with_listen_url) if there is one.
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves no connection behind.
    pub async fn listen(&self) -> Result<Listening, Error> {
        let target = self.listening.as_ref().unwrap_or(&self.statements);
        let connected = self.open(target, &target.config).await?;
        Ok(Listening::new(
            connected.client,
            connected.connection,
            self.timing.reply_limit,
        ))
    }

    async fn open_client(
        &self,
        target: &Target,
        config: tokio_postgres::Config,
    ) -> Result<Client, Failure> {
        let connected = self.open(target, &config).await?;
        let canceller = Canceller::new(target.config.clone(), self.tls(target));
        Ok(client::drive(connected, canceller))
    }

    async fn open(
        &self,
        target: &Target,
        config: &tokio_postgres::Config,
    ) -> Result<Connected, Failure> {
        let way = Way {
            tls: self.tls(target),
            falls_back: target.falls_back && self.tls.is_none(),
        };
        hosts::connect(config, &way, self.timing.reply_limit).await
    }

    fn tls(&self, target: &Target) -> Option<Arc<rustls::ClientConfig>> {
        self.tls.clone().or_else(|| target.tls.clone())
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Unsent(match failure {
            Failure::Library(error) => reason::of_connecting(error),
            Failure::Late => Obstacle::Late.into(),
        })
    }
}

impl fmt::Debug for Config {
    /// Leaves out the URLs, which may contain passwords.
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
    fn a_reply_limit_is_one_that_the_server_takes() {
        let config = Config::new("postgres://host/").unwrap();
        let config = config.with_reply_limit(Duration::MAX);
        assert!(config.reply_limit().as_millis() <= i32::MAX as u128);
        let begin = config.begin();
        assert!(begin.contains("timeout = 1288490188;"), "{begin}");
    }

    #[test]
    fn an_invalid_url_is_refused_without_showing_it() {
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
