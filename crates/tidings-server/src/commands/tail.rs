use std::io::Write;
use std::time::Duration;

use clap::Args;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use tidings_notify::wire::{BYE, GAP, SSE_PREFIX};
use tidings_notify::{GapReason, UserId};
use tidings_storage::explain::explain;

use super::document::Document;
use super::notification::NotificationLine;
use super::remote::{NOT_OURS, Refusal, Remote, lost};
use super::sse::{LineTooLong, SseEvent, SseReader};
use super::{CommandError, MAX_COUNT};
use crate::settings::count;

/// Wait before connecting again, unless the server says how long.
const DEFAULT_WAIT: Duration = Duration::from_secs(1);

/// Longest wait before connecting again. The wait doubles while the server cannot be reached.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Follows a user's stream across restarts of the server, without missing or repeating anything.
#[derive(Debug, Args)]
pub(super) struct Tail {
    /// The user
    #[arg(value_name = "USER")]
    user: UserId,

    /// Where to start: now, start, undelivered, an event's id, or a time such as 2026-11-21T10:00:00Z
    #[arg(long, default_value = "now", value_name = "WHERE")]
    since: String,

    /// Prints one JSON object a line
    #[arg(long)]
    json: bool,

    /// Ends after this many notifications
    #[arg(long, value_name = "COUNT", value_parser = count(1, MAX_COUNT))]
    count: Option<u64>,

    #[command(flatten)]
    remote: Remote,
}

impl Tail {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        let mut reader = SseReader::default();
        let mut left = self.count;
        let mut wait = DEFAULT_WAIT;
        let mut connected_before = false;
        while left != Some(0) {
            reader = reader.reconnected();
            let mut connected = false;
            let outcome = self.follow(&mut reader, &mut left, &mut connected).await;
            connected_before |= connected;
            if connected {
                // The server was there, also if the connection broke.
                wait = reader.retry.unwrap_or(DEFAULT_WAIT);
            }
            if let Err(error) = outcome {
                // If the first connection fails, the address or the key is wrong; later it is an outage.
                if !connected_before || is_final(&error) {
                    return Err(error);
                }
                let cause = explain(error.as_ref());
                writeln!(std::io::stderr(), "{cause}; reconnecting in {wait:?}")?;
            }
            if left != Some(0) {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(MAX_WAIT);
            }
        }
        Ok(())
    }

    /// Reads one connection to its end.
    async fn follow(
        &self,
        reader: &mut SseReader,
        left: &mut Option<u64>,
        connected: &mut bool,
    ) -> Result<(), CommandError> {
        let mut url = self
            .remote
            .address(&["v1", "users", self.user.as_str(), "events"])?;
        url.query_pairs_mut().append_pair("since", &self.since);
        let mut request = self.remote.client()?.get(url);
        if let Some(id) = &reader.last_event_id {
            request = request.header("last-event-id", id);
        }
        let mut response = self.remote.send(request).await?;
        if !is_event_stream(response.headers()) {
            return Err(NOT_OURS.into());
        }
        *connected = true;
        while let Some(bytes) = response.chunk().await.map_err(|error| lost(&error))? {
            let mut bytes = &*bytes;
            while let Some(event) = reader.next(&mut bytes)? {
                self.show(&event)?;
                if event.name.is_empty() {
                    *left = left.map(|left| left - 1);
                    if *left == Some(0) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn show(&self, event: &SseEvent) -> Result<(), CommandError> {
        let mut out = std::io::stdout().lock();
        let control = event.name.strip_prefix(SSE_PREFIX);
        match control.unwrap_or_default() {
            GAP => writeln!(
                std::io::stderr(),
                "some notifications are missing here: {}",
                cause_of_gap(reason(&event.data))
            )?,
            BYE => writeln!(
                std::io::stderr(),
                "the server ended the stream: {}",
                reason(&event.data)
            )?,
            _ if !event.name.is_empty() => {}
            _ if self.json => writeln!(out, "{}", event.data)?,
            _ => match Document::new(event.data.clone()) {
                Some(notification) => notification.write_line::<NotificationLine<'_>>(&mut out)?,
                None => writeln!(out, "{}", event.data)?,
            },
        }
        out.flush()?;
        Ok(())
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"))
}

/// Why there is a gap, or the server ends a stream.
pub(super) fn reason(data: &str) -> String {
    #[derive(Deserialize)]
    struct Frame {
        reason: String,
    }
    match serde_json::from_str(data) {
        Ok(Frame { reason }) => reason,
        Err(_of_another_version) => data.to_owned(),
    }
}

/// The reason of a gap in words. One of a later version stays as it is.
fn cause_of_gap(reason: String) -> String {
    let known = [
        (
            GapReason::Expired,
            "they are older than what the server keeps",
        ),
        (
            GapReason::Ahead,
            "the database of the server was put back to an older copy",
        ),
        (
            GapReason::UnknownEpoch,
            "the id to start after is of another database, or of this one before an older copy was put back",
        ),
        (
            GapReason::Invalid,
            "the id to start after is not one of this server",
        ),
    ];
    let words = known.iter().find(|(name, _)| name.as_str() == reason);
    words.map_or(reason, |(_, words)| (*words).to_owned())
}

/// Whether a repeat would fail in the same way.
fn is_final(error: &CommandError) -> bool {
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        let status = refusal.status();
        return status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS;
    }
    // The reader of standard output has ended, or the server will send the same line again.
    error.is::<std::io::Error>() || error.is::<LineTooLong>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_a_line_that_is_too_long_ends_the_command() {
        assert!(is_final(&LineTooLong.into()));
    }
}
