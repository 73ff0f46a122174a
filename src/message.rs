use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::HeaderValue;
use serde::Serialize;
use tidings_notify::{Event, EventType, Payload, UserId};
use uuid::Uuid;

/// Longest message id, in bytes.
pub const MAX_MESSAGE_ID_BYTES: usize = 255;

/// Shared by all messages, many of which may wait.
static JSON: LazyLock<Arc<HeaderValue>> =
    LazyLock::new(|| Arc::new(HeaderValue::from_static("application/json")));

/// What is sent to an endpoint: an id, a body, and what the body is.
///
/// The id stays the same over every attempt, so that a receiver can recognise a repetition.
/// Clones share the body; no attempt copies it.
///
/// ```
/// use tidings::Message;
///
/// let plain = Message::from("event occurred");
/// assert!(plain.id().starts_with("msg_"));
///
/// let json = Message::json(&serde_json::json!({"n": 1}))?.with_id("order-17")?;
/// assert_eq!(json.id(), "order-17");
/// assert_eq!(json.body(), r#"{"n":1}"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use]
pub struct Message {
    id: MessageId,
    event_type: Option<EventType>,
    body: Bytes,
    content_type: Option<Arc<HeaderValue>>,
    first_attempt: NonZeroU32,
}

/// A short id needs no allocation: many messages may wait.
#[derive(Clone)]
enum MessageId {
    Short {
        bytes: [u8; SHORT_ID_BYTES],
        len: u8,
    },
    Long(Arc<str>),
}

/// Most ids of events are no longer. With more bytes than this every message would be larger.
const SHORT_ID_BYTES: usize = 38;

const GENERATED_ID_PREFIX: &[u8] = b"msg_";
const GENERATED_ID_BYTES: u8 = 36;

impl Message {
    /// Wraps a body under a new id: `msg_` and a UUID of version 7.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self {
            id: MessageId::generate(),
            event_type: None,
            body: body.into(),
            content_type: None,
            first_attempt: NonZeroU32::MIN,
        }
    }

    /// Wraps a value as compact JSON, with the content type `application/json`, under a new id.
    ///
    /// # Errors
    ///
    /// [`serde_json::Error`] when the value has no JSON form.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Self, serde_json::Error> {
        let mut message = Self::new(serde_json::to_vec(value)?);
        message.content_type = Some(Arc::clone(&JSON));
        Ok(message)
    }

    /// The webhook of a notification, under the notification's own id.
    ///
    /// The body is compact JSON: `{"id","type","timestamp","user_id","data"}`, where `data` is the
    /// payload and `timestamp` is in RFC 3339.
    #[expect(clippy::missing_panics_doc, reason = "it cannot happen, and says why")]
    pub fn from_event(event: &Event) -> Self {
        let id = event.id.to_string();
        let body = serde_json::to_vec(&WebhookBody {
            id: &id,
            event_type: &event.event_type,
            timestamp: event.timestamp,
            user_id: &event.user,
            data: &event.payload,
        })
        .expect("a struct of texts and of checked JSON always has a JSON form");
        Self {
            id: MessageId::new(&id),
            event_type: Some(event.event_type.clone()),
            body: body.into(),
            content_type: Some(Arc::clone(&JSON)),
            first_attempt: NonZeroU32::MIN,
        }
    }

    /// Replaces the id.
    ///
    /// # Errors
    ///
    /// [`InvalidMessageId`] unless it is 1 to 255 visible ASCII characters without a full stop,
    /// which separates the parts of what is signed.
    pub fn with_id(mut self, id: impl AsRef<str>) -> Result<Self, InvalidMessageId> {
        let id = id.as_ref();
        let visible = |byte: u8| byte.is_ascii_graphic() && byte != b'.';
        if (1..=MAX_MESSAGE_ID_BYTES).contains(&id.len()) && id.bytes().all(visible) {
            self.id = MessageId::new(id);
            Ok(self)
        } else {
            Err(InvalidMessageId)
        }
    }

    /// Sets what kind of thing happened. It is for filters and traces and is not sent by itself.
    pub fn with_type(mut self, event_type: EventType) -> Self {
        self.event_type = Some(event_type);
        self
    }

    /// Sets what the body is, instead of the endpoint's default.
    pub fn with_content_type(mut self, content_type: HeaderValue) -> Self {
        self.content_type = Some(Arc::new(content_type));
        self
    }

    /// Sets the number of the first attempt, for a message of which a durable queue has made
    /// attempts before. The default is 1.
    ///
    /// Reports, traces and the retry policy count on from there: a policy of five attempts makes
    /// two of a message whose first attempt is number 4.
    pub fn with_first_attempt(mut self, number: NonZeroU32) -> Self {
        self.first_attempt = number;
        self
    }

    /// The id, sent as `webhook-id`.
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// What kind of thing happened.
    pub fn event_type(&self) -> Option<&EventType> {
        self.event_type.as_ref()
    }

    /// The exact bytes that are signed and sent.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// What the body is, if this message has a content type of its own.
    pub fn content_type(&self) -> Option<&HeaderValue> {
        self.content_type.as_deref()
    }

    /// The number of the first attempt.
    pub fn first_attempt(&self) -> NonZeroU32 {
        self.first_attempt
    }
}

impl MessageId {
    fn new(id: &str) -> Self {
        let mut bytes = [0; SHORT_ID_BYTES];
        match (bytes.get_mut(..id.len()), u8::try_from(id.len())) {
            (Some(short), Ok(len)) => {
                short.copy_from_slice(id.as_bytes());
                Self::Short { bytes, len }
            }
            _ => Self::Long(id.into()),
        }
    }

    fn generate() -> Self {
        let mut bytes = [0; SHORT_ID_BYTES];
        let (prefix, uuid) = bytes.split_at_mut(GENERATED_ID_PREFIX.len());
        prefix.copy_from_slice(GENERATED_ID_PREFIX);
        Uuid::now_v7().simple().encode_lower(uuid);
        Self::Short {
            bytes,
            len: GENERATED_ID_BYTES,
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Short { bytes, len } => {
                let id = &bytes[..usize::from(*len)];
                std::str::from_utf8(id).expect("it was made of a text")
            }
            Self::Long(id) => id,
        }
    }
}

impl PartialEq for MessageId {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for MessageId {}

#[derive(Serialize)]
struct WebhookBody<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    event_type: &'a EventType,
    timestamp: jiff::Timestamp,
    user_id: &'a UserId,
    data: &'a Payload,
}

/// A text that cannot be a message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a message id of 1 to 255 visible ASCII characters without a full stop")]
pub struct InvalidMessageId;

/// Shows the length of the body and not its content.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id())
            .field("event_type", &self.event_type)
            .field("body_bytes", &self.body.len())
            .field("content_type", &self.content_type)
            .field("first_attempt", &self.first_attempt)
            .finish()
    }
}

impl From<&str> for Message {
    fn from(body: &str) -> Self {
        Self::new(Bytes::copy_from_slice(body.as_bytes()))
    }
}

impl From<String> for Message {
    fn from(body: String) -> Self {
        Self::new(body)
    }
}

impl From<Bytes> for Message {
    fn from(body: Bytes) -> Self {
        Self::new(body)
    }
}

impl From<Vec<u8>> for Message {
    fn from(body: Vec<u8>) -> Self {
        Self::new(body)
    }
}

impl From<&Event> for Message {
    fn from(event: &Event) -> Self {
        Self::from_event(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_notify::{Draft, Epoch, EventId};

    #[test]
    fn an_event_becomes_the_documented_body() {
        let draft = Draft::new(
            UserId::new("alice").unwrap(),
            EventType::new("comment.created").unwrap(),
            Payload::parse(r#"{"n": 1.00, "text": "é"}"#).unwrap(),
        )
        .with_timestamp("2026-11-21T14:00:00.5Z".parse().unwrap());
        let event = Event::from_draft(draft, EventId::new(Epoch::from_u64(0xff), 7));

        let message = Message::from_event(&event);

        assert_eq!(message.id(), "00000000000000ff-7");
        assert_eq!(message.content_type(), Some(&**JSON));
        assert_eq!(
            message.body(),
            r#"{"id":"00000000000000ff-7","type":"comment.created","timestamp":"2026-11-21T14:00:00.5Z","user_id":"alice","data":{"n":1.00,"text":"é"}}"#,
        );
    }

    #[test]
    fn a_value_becomes_compact_json_with_its_content_type() {
        let message = Message::json(&serde_json::json!({"n": 1, "text": "é"})).unwrap();
        assert_eq!(message.body(), r#"{"n":1,"text":"é"}"#);
        assert_eq!(message.content_type(), Some(&**JSON));
        // Keys of a JSON object are texts.
        let by_list = std::collections::BTreeMap::from([([1], 2)]);
        Message::json(&by_list).unwrap_err();
    }

    #[test]
    fn generated_ids_are_unique_and_can_be_given_again() {
        let (one, other) = (Message::from("x"), Message::from("x"));
        assert_ne!(one.id(), other.id());
        assert_eq!(one.id().len(), 36);
        let copy = other.clone().with_id(one.id()).unwrap();
        assert_eq!(copy, one);
    }

    #[test]
    fn ids_of_any_length_come_back() {
        for length in [1, 37, 38, 39, 255] {
            let id = "x".repeat(length);
            assert_eq!(Message::from("x").with_id(&id).unwrap().id(), id);
        }
        assert_eq!(size_of::<MessageId>(), 40);
    }

    #[test]
    fn an_id_that_a_signature_or_a_header_cannot_hold_is_refused() {
        for id in ["", "a.b", "a b", "a\n", "é", &"x".repeat(256)] {
            let message = Message::from("x").with_id(id);
            assert_eq!(message, Err(InvalidMessageId), "{id:?}");
        }
        assert!(Message::from("x").with_id("x".repeat(255)).is_ok());
    }

    #[test]
    fn debug_output_does_not_show_the_body() {
        let shown = format!("{:?}", Message::from("the secret word"));
        assert!(shown.contains("body_bytes: 15") && !shown.contains("secret"));
    }
}
