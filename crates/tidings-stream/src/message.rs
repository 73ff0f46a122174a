use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::consumer::in_hand::InHand;
use crate::{Error, Result, StreamName, dead_letter, telemetry};

/// Longest payload, in bytes (16 MiB).
///
/// A message is held whole in memory on both sides; what is larger belongs in a file, with its
/// address in the message.
pub const MAX_PAYLOAD_BYTES: usize = 16 << 20;

/// Longest headers of one message, keys and values together, in bytes (64 KiB).
pub const MAX_HEADER_BYTES: usize = 64 << 10;

/// Largest batch of one publish, in bytes of payloads and headers (256 MiB).
///
/// A store takes a batch at once. It holds all of it in memory, or locks others out until it is written.
pub const MAX_BATCH_BYTES: usize = 256 << 20;

/// Longest publish key, in bytes.
pub const MAX_PUBLISH_KEY_BYTES: usize = 255;

/// Longest ordering key, in bytes.
pub const MAX_ORDERING_KEY_BYTES: usize = 255;

/// The header that has the [ordering key](NewMessage::with_ordering_key) of a message.
pub const ORDERING_KEY: &str = "ordering-key";

/// Longest window of a publish key. A key takes room in the store for as long as its window lasts.
pub const MAX_PUBLISH_KEY_WINDOW: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Key-value metadata of a message: any text, the empty one and NUL included.
pub type Headers = BTreeMap<String, String>;

/// The place of a message in its stream: 1, 2, 3 … without gaps.
///
/// Ids of one stream order as its messages do; ids of different streams say nothing about each
/// other. Written in decimal, with one spelling: what [`FromStr`] reads is exactly what
/// [`Display`](fmt::Display) writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(u64);

impl MessageId {
    /// The id with a number, for engines.
    pub fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// The id as a number, for engines.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A text that is no message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a message id: a whole number from 1, without sign or leading zeros")]
pub struct InvalidMessageId;

impl FromStr for MessageId {
    type Err = InvalidMessageId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `u64` would also take a plus sign and leading zeros; ids have one spelling.
        match text.parse() {
            Ok(number) if number > 0 && text.starts_with(|c| matches!(c, '1'..='9')) => {
                Ok(Self(number))
            }
            _ => Err(InvalidMessageId),
        }
    }
}

/// A message to publish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct NewMessage {
    /// The body.
    pub payload: Bytes,
    /// The metadata.
    pub headers: Headers,
    /// What a repeat is recognised by, if anything.
    pub publish_key: Option<PublishKey>,
}

/// What a repeated publish is recognised by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishKey {
    /// The key, unique within the stream.
    pub key: String,
    /// For how long after the first publish.
    pub window: Duration,
}

impl NewMessage {
    /// A message without headers. The payload is opaque and may be empty.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            payload: payload.into(),
            headers: Headers::new(),
            publish_key: None,
        }
    }

    /// A message whose payload is a value as JSON, for [`Message::json`].
    ///
    /// # Errors
    ///
    /// If there is no JSON for the value, as for a map whose keys are not text.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Self, serde_json::Error> {
        serde_json::to_vec(value).map(Self::new)
    }

    /// Sets the header [`TRACEPARENT`](telemetry::TRACEPARENT): the W3C trace context of the span that
    /// publishes. The spans of its handler calls have it, also after death and redrive.
    pub fn with_traceparent(self, traceparent: impl Into<String>) -> Self {
        self.with_header(telemetry::TRACEPARENT, traceparent)
    }

    /// Sets the header [`ORDERING_KEY`]: groups that
    /// [keep the order of keys](crate::SubscribeOptions::with_key_order) handle the messages of a stream that
    /// have the same one in their order, one at a time. Dead letters and what is redriven keep it.
    ///
    /// It is 1 to [`MAX_ORDERING_KEY_BYTES`] long and has no NUL, which publishing checks. A
    /// [publish key](Self::with_publish_key) is something else: it makes a repeat harmless.
    pub fn with_ordering_key(self, key: impl Into<String>) -> Self {
        self.with_header(ORDERING_KEY, key)
    }

    /// Sets one header, replacing an earlier one of the same key.
    pub fn with_header(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(key.into(), value.into());
        self
    }

    /// Sets all headers.
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// Makes repeats harmless: for `window` from the first publish under `key` on, another one to the
    /// same stream appends nothing and returns the id of the first, whatever its content.
    ///
    /// The key is 1 to [`MAX_PUBLISH_KEY_BYTES`] long, the window a millisecond to
    /// [`MAX_PUBLISH_KEY_WINDOW`]; publishing checks both. Choose a window longer than the
    /// publisher keeps trying.
    pub fn with_publish_key(mut self, key: impl Into<String>, window: Duration) -> Self {
        let key = key.into();
        self.publish_key = Some(PublishKey { key, window });
        self
    }

    /// The dead letter that this message becomes: the same payload, its own headers, and those of
    /// `provenance` in place of what an earlier death left.
    pub fn buried(mut self, provenance: Headers) -> Self {
        self.headers
            .retain(|key, _| !dead_letter::is_provenance(key));
        self.headers.extend(provenance);
        self
    }

    /// The message as it was before it died: payload and headers of a dead letter, without the
    /// headers that say why it died. For publishing it once more.
    pub fn revived(letter: &Message) -> Self {
        let mut headers = letter.headers.clone();
        headers.retain(|key, _| !dead_letter::is_provenance(key));
        Self {
            payload: letter.payload.clone(),
            headers,
            publish_key: None,
        }
    }

    /// What it is ordered by, if anything.
    pub fn ordering_key(&self) -> Option<&str> {
        self.headers.get(ORDERING_KEY).map(String::as_str)
    }

    /// The bytes of its payload and headers.
    pub(crate) fn bytes(&self) -> usize {
        self.payload.len() + header_bytes(&self.headers)
    }

    /// Refuses what no engine takes, and what only a death may add.
    fn check(&self) -> Result<()> {
        check_size("payload", self.payload.len(), MAX_PAYLOAD_BYTES)?;
        let mut keys = self.headers.keys();
        if keys.any(|key| dead_letter::is_provenance(key)) {
            return Err(Error::InvalidOption {
                field: "headers",
                expected: "without keys that begin with `x-dlq-`, which dead letters get when they die",
            });
        }
        check_size("headers", header_bytes(&self.headers), MAX_HEADER_BYTES)?;
        if let Some(key) = self.ordering_key() {
            check_key("ordering_key", key, MAX_ORDERING_KEY_BYTES)?;
        }
        self.publish_key.as_ref().map_or(Ok(()), PublishKey::check)
    }
}

/// The bytes of headers, keys and values together.
fn header_bytes(headers: &Headers) -> usize {
    let bytes = headers.iter();
    bytes.map(|(key, value)| key.len() + value.len()).sum()
}

/// Refuses what is longer than any engine takes.
fn check_size(field: &'static str, length: usize, limit: usize) -> Result<()> {
    if length > limit {
        return Err(Error::TooLarge {
            field,
            length,
            limit,
        });
    }
    Ok(())
}

/// Refuses a key that no engine takes.
fn check_key(field: &'static str, key: &str, limit: usize) -> Result<()> {
    check_size(field, key.len(), limit)?;
    if key.is_empty() || key.contains('\0') {
        return Err(Error::InvalidOption {
            field,
            expected: "a text without NUL that is not empty",
        });
    }
    Ok(())
}

/// Refuses messages that no engine takes, one by one or together.
pub(crate) fn check_batch(messages: &[NewMessage]) -> Result<()> {
    for message in messages {
        message.check()?;
    }
    let length = messages.iter().map(NewMessage::bytes).sum();
    check_size("batch", length, MAX_BATCH_BYTES)
}

impl PublishKey {
    fn check(&self) -> Result<()> {
        check_key("publish_key", &self.key, MAX_PUBLISH_KEY_BYTES)?;
        if !(Duration::from_millis(1)..=MAX_PUBLISH_KEY_WINDOW).contains(&self.window) {
            return Err(Error::InvalidOption {
                field: "publish_key_window",
                expected: "a millisecond to 30 days",
            });
        }
        Ok(())
    }
}

/// A message as a handler gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Its place in the stream.
    pub id: MessageId,
    /// The stream it came from.
    pub stream: StreamName,
    /// The body.
    pub payload: Bytes,
    /// The metadata.
    pub headers: Headers,
    /// When it was appended, to the millisecond: by the wall clock of the server on PostgreSQL and
    /// Redis, of the process that appended it in memory and on SQLite.
    pub created_at: Timestamp,
    /// How many times this group has been given the message, this time included: 1 at first. 0 where
    /// no group was asked.
    ///
    /// A process that is killed uses up an attempt of each message that it has claimed, also where the handler
    /// had not begun: so a message that kills its process runs out of attempts. A claim whose reply is lost on
    /// its way to a living process, and one that is handed back, do not count.
    pub attempt: u32,
    pub(crate) in_hand: InHand,
}

impl Message {
    /// Puts a message together, for engines.
    pub fn new(
        id: MessageId,
        stream: StreamName,
        content: NewMessage,
        created_at: Timestamp,
        attempt: u32,
    ) -> Self {
        Self {
            id,
            stream,
            payload: content.payload,
            headers: content.headers,
            created_at,
            attempt,
            in_hand: InHand::default(),
        }
    }

    /// The bytes of its payload and headers.
    #[cfg(feature = "sqlite")]
    pub(crate) fn bytes(&self) -> usize {
        self.payload.len() + header_bytes(&self.headers)
    }

    /// Reads the payload as JSON. What cannot be read now cannot be read later, so a handler does best to
    /// give it up:
    ///
    /// ```
    /// use tidings_stream::{HandlerError, Message};
    ///
    /// async fn bill(order: Message) -> Result<(), HandlerError> {
    ///     let (apples, price): (u32, u32) = order.json().map_err(HandlerError::skip_retry)?;
    ///     println!("{} to pay", apples * price);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// If it is no JSON, or not that of such a value.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn other_spellings_of_an_id_are_refused() {
        for text in [
            "",
            "0",
            "01",
            "+1",
            "-1",
            " 1",
            "1 ",
            "1.0",
            "0x1",
            "1-0",
            "latest",
            "١",
            "18446744073709551616",
        ] {
            assert_eq!(text.parse::<MessageId>(), Err(InvalidMessageId), "{text:?}");
        }
    }

    #[test]
    fn an_oversized_message_is_refused_by_field() {
        let message = NewMessage::new(vec![0; MAX_PAYLOAD_BYTES]);
        message.check().unwrap();
        let error = NewMessage::new(vec![0; MAX_PAYLOAD_BYTES + 1])
            .check()
            .unwrap_err();
        assert!(matches!(
            error,
            Error::TooLarge {
                field: "payload",
                ..
            }
        ));
        let error = NewMessage::new("")
            .with_header("k", "v".repeat(MAX_HEADER_BYTES))
            .check()
            .unwrap_err();
        assert!(matches!(
            error,
            Error::TooLarge {
                field: "headers",
                ..
            }
        ));
    }

    #[test]
    fn a_payload_that_was_written_as_json_is_read_as_it_was() {
        let stream = StreamName::new("app", "default", "s").unwrap();
        let received = |content| {
            let id = MessageId::from_u64(1);
            Message::new(id, stream.clone(), content, Timestamp::UNIX_EPOCH, 1)
        };
        let order = (BTreeMap::from([("apples", 3)]), Some("\u{1f34e}"));
        let message = received(NewMessage::json(&order).unwrap());
        assert_eq!(
            message
                .json::<(BTreeMap<&str, u32>, Option<&str>)>()
                .unwrap(),
            order
        );
        assert!(message.json::<u32>().is_err());
        assert!(received(NewMessage::new("")).json::<()>().is_err());
        assert!(NewMessage::json(&BTreeMap::from([((1, 2), 3)])).is_err());
    }

    #[test]
    fn a_batch_is_bounded_with_its_headers() {
        let payload = Bytes::from(vec![0; MAX_PAYLOAD_BYTES]);
        let mut batch = vec![NewMessage::new(payload); MAX_BATCH_BYTES / MAX_PAYLOAD_BYTES];
        check_batch(&batch).unwrap();
        batch.push(NewMessage::new("").with_header("k", ""));
        let refused = check_batch(&batch).unwrap_err();
        let expected = MAX_BATCH_BYTES + 1;
        assert!(
            matches!(refused, Error::TooLarge { field: "batch", length, .. } if length == expected)
        );
    }

    #[test]
    fn a_publish_key_outside_its_range_is_refused_by_field() {
        let minute = Duration::from_secs(60);
        for (key, window, wrong) in [
            ("", minute, "publish_key"),
            ("a\0b", minute, "publish_key"),
            (&*"k".repeat(256), minute, "publish_key"),
            ("k", Duration::ZERO, "publish_key_window"),
            ("k", Duration::MAX, "publish_key_window"),
        ] {
            match NewMessage::new("").with_publish_key(key, window).check() {
                Err(Error::InvalidOption { field, .. } | Error::TooLarge { field, .. }) => {
                    assert_eq!(field, wrong);
                }
                other => panic!("{other:?}"),
            }
        }
        let message = NewMessage::new("").with_publish_key("k".repeat(255), minute);
        message.check().unwrap();
    }

    #[test]
    fn an_ordering_key_outside_its_range_is_refused_by_field() {
        for key in ["", "a\0b", &*"k".repeat(256)] {
            match NewMessage::new("").with_ordering_key(key).check() {
                Err(Error::InvalidOption { field, .. } | Error::TooLarge { field, .. }) => {
                    assert_eq!(field, "ordering_key");
                }
                other => panic!("{other:?}"),
            }
        }
        let longest = NewMessage::new("").with_ordering_key("\u{1}".repeat(255));
        longest.check().unwrap();
    }

    proptest! {
        #[test]
        fn an_id_reads_back_as_written_and_orders_as_its_number(a in 1..u64::MAX, b in 1..u64::MAX) {
            let (first, second) = (MessageId::from_u64(a), MessageId::from_u64(b));
            prop_assert_eq!(first.to_string().parse(), Ok(first));
            prop_assert_eq!(first.cmp(&second), a.cmp(&b));
        }

        #[test]
        fn reading_an_id_never_panics(text in ".*") {
            if let Ok(id) = text.parse::<MessageId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
