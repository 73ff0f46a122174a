pub(crate) mod content_type;
mod names;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::HeaderValue;
use serde::Serialize;
use tidings_notify::{Event, EventType, Payload, UserId};

pub use content_type::InvalidContentType;
use names::Names;

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
///
/// # Memory
///
/// A message that is queued or waits for its next attempt takes less than 256 bytes beside its
/// body, however many attempts were made. These take more:
///
/// - an id and a type that are longer than 53 bytes together: as many bytes as they have;
/// - a content type other than `application/json`: about 100 bytes;
/// - a call of `deliver` that waits for the outcome: its own future, and 6 bytes for each attempt;
/// - a tracing subscriber that records the span of the delivery: what it records.
#[derive(Clone, PartialEq, Eq)]
#[must_use]
pub struct Message {
    names: Names,
    body: Bytes,
    content_type: Option<Arc<HeaderValue>>,
    first_attempt: NonZeroU32,
}

impl Message {
    /// Wraps a body under a new id: `msg_` and a UUID of version 7.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self {
            names: Names::generate(),
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
            names: Names::new(&id, event.event_type.as_str()),
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
            self.names = Names::new(id, self.names.event_type());
            Ok(self)
        } else {
            Err(InvalidMessageId)
        }
    }

    /// Sets what kind of thing happened, in any text. It is for traces and is not sent by itself; an
    /// empty text means none, which is the default.
    pub fn with_type(mut self, event_type: impl AsRef<str>) -> Self {
        self.names = Names::new(self.names.id(), event_type.as_ref());
        self
    }

    /// Sets what the body is, instead of the endpoint's default.
    ///
    /// # Errors
    ///
    /// [`InvalidContentType`] unless it is a media type, such as `application/json` or
    /// `text/plain; charset=utf-8`.
    pub fn with_content_type(
        mut self,
        content_type: impl AsRef<str>,
    ) -> Result<Self, InvalidContentType> {
        let content_type = content_type::parse(content_type.as_ref())?;
        self.content_type = Some(if content_type == **JSON {
            Arc::clone(&JSON)
        } else {
            Arc::new(content_type)
        });
        Ok(self)
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
        self.names.id()
    }

    /// What kind of thing happened.
    pub fn event_type(&self) -> Option<&str> {
        let event_type = self.names.event_type();
        (!event_type.is_empty()).then_some(event_type)
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
#[expect(
    clippy::missing_fields_in_debug,
    reason = "the names are shown one by one"
)]
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id())
            .field("event_type", &self.event_type())
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
    fn id_and_type_are_set_in_either_order() {
        let message = Message::from("x");
        assert_eq!(message.event_type(), None);
        let id_first = message
            .clone()
            .with_id("order-17")
            .unwrap()
            .with_type("invoice.paid");
        let type_first = message
            .with_type("invoice.paid")
            .with_id("order-17")
            .unwrap();
        assert_eq!(id_first, type_first);
        assert_eq!(id_first.id(), "order-17");
        assert_eq!(id_first.event_type(), Some("invoice.paid"));
        assert_eq!(id_first.with_type("").event_type(), None);
    }

    #[test]
    fn the_content_type_of_json_is_shared() {
        let message = Message::from("{}").with_content_type("application/json");
        assert!(Arc::ptr_eq(&message.unwrap().content_type.unwrap(), &JSON));
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
