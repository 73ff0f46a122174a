//! What a dead letter says about its death.

use jiff::Timestamp;

use crate::Headers;
use crate::consumer::Origin;
use crate::engine::GroupKey;

/// The start of every header that the move to a dead-letter stream adds. Publishers may not send such headers:
/// they say where a redrive publishes.
pub(crate) const PREFIX: &str = "x-dlq-";

/// Longest [`ERROR`] header, in bytes.
const MAX_ERROR_BYTES: usize = 1024;

/// Header of a dead letter: the full name of the stream it came from.
pub const STREAM: &str = "x-dlq-stream";
/// Header of a dead letter: the consumer group that gave up on it.
pub const GROUP: &str = "x-dlq-group";
/// Header of a dead letter: its id in the stream it came from.
pub const ID: &str = "x-dlq-id";
/// Header of a dead letter: how many attempts were made.
pub const ATTEMPTS: &str = "x-dlq-attempts";
/// Header of a dead letter: why it died, a [`Reason`] as text.
pub const REASON: &str = "x-dlq-reason";
/// Header of a dead letter: what its handler said last, with causes, at most 1 KiB. Absent when no
/// handler ever said anything.
pub const ERROR: &str = "x-dlq-error";
/// Header of a dead letter: when it was first published, in RFC 3339.
pub const FIRST_AT: &str = "x-dlq-first-at";
/// Header of a dead letter: when it died, in RFC 3339.
pub const DEAD_AT: &str = "x-dlq-dead-at";
/// Header of a dead letter: the id of the consumer that gave up on it.
pub const CONSUMER: &str = "x-dlq-consumer";

/// Why a message became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Its last attempt failed too.
    Exhausted,
    /// Its handler asked for no other attempt.
    Skip,
    /// Its last attempt ended without a result: the handler hung, or the process died.
    Poison,
}

impl Reason {
    /// The word in the [`REASON`] header: `exhausted`, `skip` or `poison`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Skip => "skip",
            Self::Poison => "poison",
        }
    }
}

/// Whether a header was added by a move to a dead-letter stream.
pub(crate) fn is_provenance(key: &str) -> bool {
    key.starts_with(PREFIX)
}

/// The headers above, for one message.
pub(crate) fn provenance(
    group: &GroupKey,
    consumer: &str,
    origin: &Origin,
    reason: Reason,
    error: Option<String>,
) -> Headers {
    let mut headers = Headers::from(
        [
            (STREAM, group.stream.to_string()),
            (GROUP, group.group.to_string()),
            (ID, origin.id.to_string()),
            (ATTEMPTS, origin.attempt.to_string()),
            (REASON, reason.as_str().to_owned()),
            (FIRST_AT, origin.created_at.to_string()),
            (DEAD_AT, Timestamp::now().to_string()),
            (CONSUMER, consumer.to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    if let Some(error) = error {
        headers.insert(ERROR.to_owned(), error);
    }
    headers
}

/// An error and its causes as one line, `outer: inner: innermost`, cut to 1 KiB.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        if text.len() > MAX_ERROR_BYTES {
            break;
        }
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    truncated(text)
}

/// Cuts a text to what fits the [`ERROR`] header, between two characters.
pub(crate) fn truncated(mut text: String) -> String {
    let mut end = text.len().min(MAX_ERROR_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_error_is_cut_between_two_characters() {
        let cut = truncated("é".repeat(MAX_ERROR_BYTES));
        assert_eq!(cut, "é".repeat(MAX_ERROR_BYTES / 2));
        let cut = truncated(format!("x{}", "é".repeat(MAX_ERROR_BYTES)));
        assert_eq!(cut.len(), MAX_ERROR_BYTES - 1);
        assert_eq!(truncated("short".to_owned()), "short");
    }

    #[test]
    fn an_error_is_described_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("inner"));
        assert_eq!(describe(&error), "outer: inner");
    }
}
