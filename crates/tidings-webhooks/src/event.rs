use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidings::{InvalidMessageId, Message};
use tidings_notify::{Event, EventType, Payload, UserId};
use uuid::Uuid;

/// What is posted to endpoints: an event as it was accepted.
///
/// It is stored once, for any number of endpoints and attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookEvent {
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) event_type: String,
    #[serde(rename = "user_id")]
    pub(crate) user: Option<UserId>,
    pub(crate) payload: Payload,
    pub(crate) timestamp: Timestamp,
}

/// How an event becomes the body of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum Format {
    /// `{"id","type","timestamp","user_id","data"}`, compact.
    #[default]
    Envelope,
    /// The payload alone.
    Raw,
}

impl WebhookEvent {
    /// An event that happens now, under a new id. It belongs to no user, so that only endpoints of
    /// the operator get it, until [`with_user`](Self::with_user) says otherwise.
    pub fn new(event_type: &EventType, payload: Payload) -> Self {
        Self::of_type(event_type.as_str().to_owned(), payload)
    }

    /// An event of a type that may be one of our own.
    pub(crate) fn of_type(event_type: String, payload: Payload) -> Self {
        Self {
            id: format!("evt_{}", Uuid::now_v7().simple()),
            event_type,
            user: None,
            payload,
            timestamp: Timestamp::now(),
        }
    }

    /// Replaces the id, which receivers see as `webhook-id`. An id is used once: an event whose id
    /// was accepted before is not sent again.
    ///
    /// # Errors
    ///
    /// [`InvalidMessageId`] unless it is 1 to 255 visible ASCII characters without a full stop.
    pub fn with_id(mut self, id: impl Into<String>) -> Result<Self, InvalidMessageId> {
        self.id = id.into();
        Message::new(Bytes::new())
            .with_id(self.id.as_str())
            .map(|_| self)
    }

    /// Says whose event it is: the endpoints of this user get it too.
    #[must_use]
    pub fn with_user(mut self, user: UserId) -> Self {
        self.user = Some(user);
        self
    }

    /// Says when it happened.
    #[must_use]
    pub fn with_timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = timestamp;
        self
    }

    /// The id, sent as `webhook-id`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What happened.
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// Whose event it is.
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// What the application says about it.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// When it happened.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// Whether every store takes it. What was not made by [`new`](Self::new) may have any id and type.
    pub(crate) fn is_storable(&self) -> bool {
        const LONGEST: usize = 255;
        [&self.id, &self.event_type]
            .iter()
            .all(|name| (1..=LONGEST).contains(&name.len()) && !name.contains(char::is_control))
    }

    /// The event as it is read from a store.
    pub(crate) fn into_stored(self) -> Self {
        let timestamp = crate::clock::to_microseconds(self.timestamp);
        self.with_timestamp(timestamp)
    }

    /// The event as a message to send.
    pub(crate) fn render(&self, format: Format) -> Result<Message, InvalidMessageId> {
        let message = match format {
            Format::Raw => Message::json(&self.payload),
            Format::Envelope => Message::json(&Envelope {
                id: &self.id,
                event_type: &self.event_type,
                timestamp: self.timestamp,
                user_id: self.user.as_ref(),
                data: &self.payload,
            }),
        };
        message
            .expect("texts and checked JSON always have a JSON form")
            .with_id(self.id.as_str())
            .map(|message| message.with_type(&self.event_type))
    }
}

/// An event of a user's log, under its id there.
impl From<&Event> for WebhookEvent {
    fn from(event: &Event) -> Self {
        Self {
            id: event.id.to_string(),
            event_type: event.event_type.as_str().to_owned(),
            user: Some(event.user.clone()),
            payload: event.payload.clone(),
            timestamp: event.timestamp,
        }
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    timestamp: Timestamp,
    user_id: Option<&'a UserId>,
    data: &'a Payload,
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_notify::{Draft, Epoch, EventId};

    fn logged() -> Event {
        let draft = Draft::new(
            UserId::new("alice").unwrap(),
            EventType::new("order.paid").unwrap(),
            Payload::parse(r#"{"n": 1.00, "text": "é"}"#).unwrap(),
        )
        .with_timestamp("2026-11-21T14:00:00.5Z".parse().unwrap());
        Event::from_draft(draft, EventId::new(Epoch::from_u64(0xff), 7))
    }

    #[test]
    fn the_envelope_is_the_one_of_the_client() {
        let event = logged();
        let message = WebhookEvent::from(&event).render(Format::Envelope).unwrap();
        assert_eq!(message, Message::from_event(&event));
    }

    #[test]
    fn a_raw_body_is_the_payload_alone() {
        let message = WebhookEvent::from(&logged()).render(Format::Raw).unwrap();
        assert_eq!(message.body(), r#"{"n":1.00,"text":"é"}"#);
        assert_eq!(message.id(), "00000000000000ff-7");
    }

    #[test]
    fn an_event_survives_its_stream() {
        let event = WebhookEvent::from(&logged());
        let json = serde_json::to_string(&[&event]).unwrap();
        let read: Vec<WebhookEvent> = serde_json::from_str(&json).unwrap();
        assert_eq!(read, [event]);
    }

    #[test]
    fn ids_that_no_header_can_hold_are_refused() {
        let event = || WebhookEvent::from(&logged());
        assert!(event().with_id("a.b").is_err());
        assert!(event().with_id("").is_err());
        assert!(event().with_id("order-17").is_ok());
    }
}
