//! Publishing inside transactions of the caller's own.
//!
//! A stream's numbers are taken under a lock until the commit, and a transaction of a caller's
//! may stay open for as long as it likes. So it leaves its messages in an outbox, without numbers;
//! once they are committed, whichever engine comes first gives them their numbers and puts them into
//! their streams, in a short transaction.

use std::sync::Arc;
use std::time::Duration;

use tidings_postgres::tokio_postgres::GenericClient;
use tidings_postgres::tokio_postgres::types::Type;
use tidings_postgres::{Connections, params};
use tidings_reconnect::Trouble;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::announce::Announcer;
use super::append::Columns;
use super::content::MAX_BYTES;
use super::failure;
use super::rows::{get, row};
use crate::engine::Wakes;
use crate::{Error, NewMessage, Result, StreamName, message};

/// Most messages that get their numbers in one transaction.
const BATCH: i64 = 500;

/// How often to look into the outbox without a wake-up, on average.
const POLL: Duration = Duration::from_secs(1);

const LEAVE: &str = "
    INSERT INTO tidings_stream_outbox (stream, payload, headers, key, key_window)
    SELECT $1, payload, headers, key, key_window
    FROM unnest($2::bytea[], $3::bytea[], $4::text[], $5::bigint[]) WITH ORDINALITY
        AS message (payload, headers, key, key_window, n)
    ORDER BY n";

const NOTIFY: &str = "SELECT pg_notify(tidings_stream_channel(), 'outbox')";

/// What the outbox begins with.
const OLDEST: &str = "SELECT min(outbox_id) FROM tidings_stream_outbox";

/// How long another session may be at the same message. It waits ten seconds for a lock.
const STUCK: Duration = Duration::from_secs(30);

const SEQUENCE: &str = "SELECT streams, messages FROM tidings_stream_sequence($1, $2)";

/// Publishes messages inside a transaction of the caller's own: they get into the stream after it
/// commits, whole and in their order, and never if it does not.
///
/// It takes no lock, so a transaction that stays open holds up no other. The messages have no ids yet.
/// They get them, with the time of their publishing and the check of their publish keys, from an engine
/// that is open on the same tables, in this process or another. Call
/// [`Streams::wake`](crate::Streams::wake) after the commit to have that done at once; without it, it
/// is done within about a second. The stream's retention stays as it was.
///
/// The client, or transaction, must find the tables in its search path, as the engine does.
///
/// # Errors
///
/// [`Error::TooLarge`] for a message or for all together, [`Error::Full`] or [`Error::Backend`] when
/// the server refuses them. Roll back then.
///
/// # Cancel safety
///
/// A dropped future may have left the messages in the transaction; roll back then, too.
///
/// ```no_run
/// use tidings_stream::NewMessage;
/// use tidings_stream::postgres::{publish_in, tokio_postgres};
///
/// # async fn example(
/// #     client: &mut tokio_postgres::Client, streams: tidings_stream::Streams,
/// #     orders: tidings_stream::StreamName,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let transaction = client.transaction().await?;
/// transaction.execute("UPDATE stock SET apples = apples - 3", &[]).await?;
/// publish_in(&transaction, &orders, &[NewMessage::new("three apples")]).await?;
/// transaction.commit().await?;
/// streams.wake(&orders);
/// # Ok(()) }
/// ```
pub async fn publish_in(
    client: &(impl GenericClient + Sync),
    stream: &StreamName,
    messages: &[NewMessage],
) -> Result<()> {
    message::check_batch(messages)?;
    if messages.is_empty() {
        return Ok(());
    }
    let columns = Columns::new(messages)?;
    // Arrays that are NULL end before the others, and are filled up.
    client
        .execute_typed(
            LEAVE,
            &[
                (&stream.as_str(), Type::TEXT),
                (&columns.payloads, Type::BYTEA_ARRAY),
                (&columns.headers, Type::BYTEA_ARRAY),
                (&columns.keys, Type::TEXT_ARRAY),
                (&columns.windows, Type::INT8_ARRAY),
            ],
        )
        .await
        .map_err(failure::statement)?;
    Ok(())
}

/// Makes the commit of a transaction that has [published](publish_in) notify all engines, for callers
/// that have no [`Streams`](crate::Streams) to wake. The server commits transactions that notify one
/// after the other, whatever they are about, which makes this the slower way.
///
/// # Errors
///
/// [`Error::Backend`] if the server refuses it. Roll back then.
///
/// # Cancel safety
///
/// A dropped future may or may not have added the notification.
pub async fn notify_in(client: &(impl GenericClient + Sync)) -> Result<()> {
    let notified = client.query_typed(NOTIFY, &[]).await;
    notified.map(drop).map_err(failure::statement)
}

/// Empties the outbox for as long as it is polled, at once when `look` is notified.
pub(super) async fn keep_emptying(
    look: Arc<Notify>,
    connections: Arc<Connections>,
    wakes: Wakes,
    announcer: Announcer,
) {
    let mut trouble = Trouble::new();
    let mut elsewhere = Elsewhere::default();
    loop {
        // Spread, so that processes that start together do not look together.
        let pause = POLL.mul_f64(0.75 + fastrand::f64() / 2.0);
        tokio::select! {
            () = look.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        match empty(&connections, &wakes, &announcer).await {
            Ok(is_done_here) => {
                if trouble.worked() {
                    tracing::info!("emptying the outbox of transactions works again");
                }
                if is_done_here {
                    elsewhere.goes_on();
                } else if let Ok(row) = row(&connections, OLDEST, &[]).await {
                    // An outage is noticed by the next look.
                    let oldest = row.and_then(|row| get::<Option<i64>>(&row, 0).ok().flatten());
                    elsewhere.is_at(oldest);
                }
            }
            Err(Error::Closed) => return,
            Err(error) => {
                // An outage of the database is reported by what listens and by what calls.
                if !failure::is_outage(&error) && trouble.failed() {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "emptying the outbox of transactions failed, trying again"
                    );
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Gives everything in the outbox its number. Returns `false` if another session is at it.
async fn empty(connections: &Connections, wakes: &Wakes, announcer: &Announcer) -> Result<bool> {
    loop {
        let Some(row) = row(connections, SEQUENCE, params![BATCH, MAX_BYTES]).await? else {
            return Ok(false);
        };
        let streams: Option<Vec<&str>> = get(&row, 0)?;
        for stream in streams.into_iter().flatten() {
            let stream: StreamName = stream.parse()?;
            wakes.wake(&stream);
            announcer.announce(&stream);
        }
        if get::<i64>(&row, 1)? == 0 {
            return Ok(true);
        }
    }
}

/// What is known of another session that is at the outbox. One that takes no message out of it, because it is
/// held up or forgotten, keeps all others from it without an error.
#[derive(Debug, Default)]
struct Elsewhere {
    /// The message that it is at, and since when.
    oldest: Option<(i64, Instant)>,
    is_reported: bool,
}

impl Elsewhere {
    /// The outbox begins with this message.
    fn is_at(&mut self, oldest: Option<i64>) {
        let now = Instant::now();
        match (oldest, self.oldest) {
            (Some(oldest), Some((before, since))) if oldest == before => {
                if now - since >= STUCK && !std::mem::replace(&mut self.is_reported, true) {
                    tracing::warn!(
                        "another session holds the outbox of transactions and does not empty it: \
                         what they have published waits"
                    );
                }
            }
            (oldest, _) => {
                self.goes_on();
                self.oldest = oldest.map(|oldest| (oldest, now));
            }
        }
    }

    /// Messages leave the outbox.
    fn goes_on(&mut self) {
        self.oldest = None;
        if std::mem::take(&mut self.is_reported) {
            tracing::info!("the outbox of transactions is emptied again");
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings_test_support::Log;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outbox_that_another_session_holds_is_reported_once_and_so_is_its_end() {
        let log = Log::default();
        let _listening = log.listen();
        let (held, emptied) = (
            || log.lines("another session holds the outbox").len(),
            || log.lines("is emptied again").len(),
        );
        let mut elsewhere = Elsewhere::default();
        // It is slow, and goes on.
        for message in 0..10 {
            elsewhere.is_at(Some(message));
            advance(STUCK / 2).await;
        }
        assert_eq!((held(), emptied()), (0, 0));
        for outage in 1..=2 {
            for _ in 0..10 {
                elsewhere.is_at(Some(10));
                advance(STUCK / 2).await;
            }
            assert_eq!((held(), emptied()), (outage, outage - 1));
            elsewhere.is_at(None);
            assert_eq!((held(), emptied()), (outage, outage));
        }
        elsewhere.goes_on();
        assert_eq!((held(), emptied()), (2, 2));
    }
}
