use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use tidings_reconnect::Breakable as _;
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::{AsyncMessage, Row};
use tokio_util::task::AbortOnDropHandle;

use crate::cancel::Canceller;
use crate::hosts::Connected;
use crate::{Error, Parameter};

/// An open connection, with the task that reads from it and writes to it. Dropping it closes the
/// connection.
///
/// It is the [`tokio_postgres::Client`]: statements that are sent before the replies to others have
/// arrived are pipelined.
pub struct Client {
    statements: tokio_postgres::Client,
    canceller: Canceller,
    plain_host: Option<String>,
    waits: Arc<Waits>,
    _driver: AbortOnDropHandle<()>,
}

/// What is known of the waits of commits for a synchronous standby.
#[derive(Default)]
struct Waits {
    /// The commits that nothing may cancel.
    committing: AtomicUsize,
    /// The requests to cancel whose effect may still come.
    cancelling: AtomicUsize,
    /// The waits that were ended before the standby had the commit.
    cut_short: AtomicUsize,
}

/// Counts as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

/// [The server commits](Client::committing).
#[must_use]
pub struct Committing<'a>(Counted<'a>);

pub(crate) fn drive(connected: Connected, canceller: Canceller) -> Client {
    let Connected {
        client,
        mut connection,
        plain_host,
    } = connected;
    let waits = Arc::new(Waits::default());
    let watching = Arc::clone(&waits);
    let driver = async move {
        loop {
            match poll_fn(|cx| connection.poll_message(cx)).await {
                Some(Ok(AsyncMessage::Notice(notice))) => watching.look_at(&notice),
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::debug!(error, "a connection to PostgreSQL broke");
                    break;
                }
                None => break,
            }
        }
    };
    Client {
        statements: client,
        canceller,
        plain_host,
        waits,
        _driver: AbortOnDropHandle::new(tokio::spawn(driver.boxed())),
    }
}

impl Waits {
    /// A notice comes before the reply to the statement that it is about.
    fn look_at(&self, notice: &DbError) {
        /// The function of the server that waits. Its texts may be translated.
        const WAITING: &str = "SyncRepWaitForLSN";
        tracing::debug!(
            severity = notice.severity(),
            message = notice.message(),
            "PostgreSQL gave a notice"
        );
        let is_warning = notice.parsed_severity() == Some(Severity::Warning);
        let is_cancelling = self.cancelling.load(Ordering::Relaxed) > 0;
        if is_warning && (is_cancelling || notice.routine() == Some(WAITING)) {
            self.cut_short.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Client {
    /// The host, if it may be another machine and the connection to it has no TLS: what is sent can be read
    /// on the way.
    pub fn plain_host(&self) -> Option<&str> {
        self.plain_host.as_deref()
    }

    /// Asks the server, on a connection of its own, to cancel the statement that it runs for this one.
    /// Whether it did shows in the outcome of the statement.
    ///
    /// # Errors
    ///
    /// [`Error::Unsent`] when the server cannot be reached. How long that may take is for the caller to
    /// limit.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have cancelled the statement.
    pub async fn cancel(&self) -> Result<(), Error> {
        self.canceller.cancel(&self.statements.cancel_token()).await
    }

    /// Says that all that the server still does for this client is to commit. While the value lives,
    /// [`Database::run`](crate::Database::run) cancels nothing: asked to cancel a commit that waits for a
    /// synchronous standby, PostgreSQL reports it as done although the standby does not have it.
    ///
    /// The commit goes on, also without this client, and keeps its session and its locks until the standby
    /// has it. A caller that tries again should ask before whether it still does, or sessions pile up.
    pub fn committing(&self) -> Committing<'_> {
        Committing(Counted::new(&self.waits.committing))
    }

    pub(crate) fn is_committing(&self) -> bool {
        self.waits.committing.load(Ordering::Relaxed) > 0
    }

    /// Says that a request to cancel may have its effect for as long as the value lives.
    pub(crate) fn cancelling(&self) -> impl Drop + Send + '_ {
        Counted::new(&self.waits.cancelling)
    }

    /// How many waits for a synchronous standby were ended before it had the commit.
    pub(crate) fn waits_cut_short(&self) -> usize {
        self.waits.cut_short.load(Ordering::Relaxed)
    }

    /// Runs a statement in a transaction of its own whose isolation level is `READ COMMITTED`, whatever
    /// the default of the session is. All of it is sent at once, so that a dropped future leaves no
    /// transaction open.
    ///
    /// # Errors
    ///
    /// As for [`tokio_postgres::Client::query_typed`].
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have run the statement or not.
    pub async fn query_in_transaction(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
        let (begun, rows, ended) = tokio::join!(
            self.statements.batch_execute(BEGIN),
            self.statements.query_typed(statement, parameters),
            self.statements.batch_execute("COMMIT"),
        );
        begun?;
        let rows = rows?;
        ended?;
        Ok(rows)
    }
}

impl tidings_reconnect::Breakable for Client {
    fn is_broken(&self) -> bool {
        self.statements.is_closed()
    }
}

impl Deref for Client {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &tokio_postgres::Client {
        &self.statements
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("is_broken", &self.is_broken())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Committing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counted(count) = &self.0;
        f.debug_tuple("Committing").field(count).finish()
    }
}
