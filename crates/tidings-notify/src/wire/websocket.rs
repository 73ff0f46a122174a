//! JSON text frames of a WebSocket.

use serde::{Deserialize, Serialize};

use super::control::{Control, NOTIFICATION};
use crate::{Event, EventId, Item};

/// The name of the frame that replies to a request which cannot be carried out.
pub const ERROR: &str = "error";

/// The name of [`Ping`].
pub const PING: &str = "ping";

/// A text frame: a name, with the document inside it or beside it. Its JSON is what is sent.
#[derive(Debug, Serialize)]
pub struct WebSocketFrame<D> {
    event: &'static str,
    #[serde(flatten)]
    document: D,
}

/// What stands in the frame of a notification.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "NotificationFrame"))]
#[non_exhaustive]
pub struct Notification<'a> {
    /// The notification.
    pub data: &'a Event,
}

/// What keeps a silent connection alive. Send it beside each ping of the protocol, because a browser hides that one from
/// the page, which then could not notice that the connection is dead.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Ping {}

impl WebSocketFrame<Ping> {
    /// The frame beside a ping.
    pub fn ping() -> Self {
        Self {
            event: PING,
            document: Ping {},
        }
    }
}

impl<D: Serialize> WebSocketFrame<D> {
    /// The frame of an error, with the fields of a document of your own.
    pub fn error(document: D) -> Self {
        Self {
            event: ERROR,
            document,
        }
    }

    /// The text to send.
    ///
    /// # Errors
    ///
    /// If a document of your own is not a JSON object.
    pub fn to_text(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

impl WebSocketFrame<()> {
    /// The text of an item; `None` for a kind of item that this version does not know.
    ///
    /// # Errors
    ///
    /// As for [`to_text`](Self::to_text).
    pub fn text_of(item: &Item) -> serde_json::Result<Option<String>> {
        match (item, Control::of(item)) {
            (Item::Event(event), _) => WebSocketFrame::from(event.as_ref()).to_text().map(Some),
            (_, Some(control)) => WebSocketFrame::from(control).to_text().map(Some),
            (_, None) => Ok(None),
        }
    }
}

impl<'a> From<&'a Event> for WebSocketFrame<Notification<'a>> {
    fn from(data: &'a Event) -> Self {
        Self {
            event: NOTIFICATION,
            document: Notification { data },
        }
    }
}

impl<'a> From<Control<'a>> for WebSocketFrame<Control<'a>> {
    fn from(control: Control<'a>) -> Self {
        Self {
            event: control.name(),
            document: control,
        }
    }
}

/// What a client may send: `{"ack":"<id>"}` and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum Request {
    /// The client has everything up to this event.
    Ack(EventId),
    /// The user has read this event.
    Read(EventId),
    /// The user has seen that there is everything up to this event.
    Seen(EventId),
    /// The user has archived this event.
    Archive(EventId),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    #[test]
    fn a_client_may_say_one_thing_in_a_frame() {
        let id = EventId::new(Epoch::from_u64(255), 3);
        let parse = |text| serde_json::from_str::<Request>(text);
        assert_eq!(
            parse(r#"{"ack":"00000000000000ff-3"}"#).unwrap(),
            Request::Ack(id)
        );
        for text in [
            "",
            "{}",
            r#"{"ack":"3"}"#,
            r#"{"delete":"00000000000000ff-3"}"#,
            r#"{"ack":"00000000000000ff-3","seen":"00000000000000ff-3"}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
