//! The documents that streams send beside notifications, and how Server-Sent Events frame them.

use std::fmt::Write;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tidings_notify::{Event, EventId, Gap, Marked, ReadChange, UserId};

/// First on every stream: where it starts.
#[derive(Debug, Serialize)]
pub(crate) struct Hello<'a> {
    pub(crate) user_id: &'a UserId,
    /// What to come back with if nothing follows.
    pub(crate) cursor: EventId,
    pub(crate) unread: u64,
    /// The longest silence to expect.
    #[serde(rename = "ping_interval_ms", serialize_with = "as_milliseconds")]
    pub(crate) ping_interval: Duration,
}

fn as_milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u128(duration.as_millis())
}

/// The backlog is over; what follows is live.
#[derive(Debug, Serialize)]
pub(crate) struct CaughtUp {
    pub(crate) cursor: EventId,
}

/// Events are missing here.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct GapFrame {
    /// The client's cursor, if it could be read.
    pub(crate) from: Option<EventId>,
    /// The cursor before the first event that follows.
    pub(crate) to: EventId,
    pub(crate) reason: &'static str,
}

impl From<&Gap> for GapFrame {
    fn from(gap: &Gap) -> Self {
        Self {
            from: gap.from,
            to: gap.to,
            reason: gap.reason.as_str(),
        }
    }
}

/// Events were marked as read: `ids`, or all up to `up_to`; with neither, which ones is not known.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ReadFrame {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ids: Option<Vec<EventId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) up_to: Option<EventId>,
    pub(crate) unread: u64,
    /// The newest event that `unread` counts.
    pub(crate) as_of: EventId,
}

impl From<&ReadChange> for ReadFrame {
    fn from(change: &ReadChange) -> Self {
        let (ids, up_to) = match &change.marked {
            Marked::Ids(ids) => (Some(ids.to_vec()), None),
            Marked::UpTo(id) => (None, Some(*id)),
            _ => (None, None),
        };
        Self {
            ids,
            up_to,
            unread: change.unread,
            as_of: change.as_of,
        }
    }
}

/// Last on a stream that the server ends.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Bye {
    /// 4000 to 4099: do not come back; 4100 to 4199: back off; 4200 to 4299: come back at once.
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) reconnect_after_ms: u64,
}

impl Bye {
    /// The server stops; the waits are spread so that not everybody comes back at once.
    pub(crate) fn stopping() -> Self {
        Self {
            code: 4200,
            reason: "the server is stopping",
            reconnect_after_ms: fastrand::u64(250..2000),
        }
    }

    /// A limit on open streams is reached.
    pub(crate) fn full(reason: &'static str) -> Self {
        Self {
            code: 4100,
            reason,
            reconnect_after_ms: fastrand::u64(10_000..30_000),
        }
    }
}

/// How the events of a stream name themselves to an `EventSource`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventNaming {
    /// No `event:` line, so that `onmessage` sees every notification.
    Message,
    /// Each by its type, for `addEventListener`.
    Type,
}

/// Text in the framing of Server-Sent Events, written one frame after another.
#[derive(Debug, Default)]
pub(crate) struct SseWriter(String);

impl SseWriter {
    /// Tells the client how long to wait before it connects again.
    pub(crate) fn retry(&mut self, wait: Duration) -> &mut Self {
        self.line("retry", &wait.as_millis().to_string());
        self.0.push('\n');
        self
    }

    pub(crate) fn hello(&mut self, hello: &Hello<'_>) -> serde_json::Result<&mut Self> {
        self.control("tidings.hello", Some(hello.cursor), hello)
    }

    pub(crate) fn event(
        &mut self,
        event: &Event,
        naming: EventNaming,
    ) -> serde_json::Result<&mut Self> {
        let name = match naming {
            EventNaming::Message => None,
            EventNaming::Type => Some(event.event_type.as_str()),
        };
        self.frame(name, Some(event.id), &serde_json::to_string(event)?);
        Ok(self)
    }

    pub(crate) fn gap(&mut self, gap: &Gap) -> serde_json::Result<&mut Self> {
        self.control("tidings.gap", Some(gap.to), &GapFrame::from(gap))
    }

    pub(crate) fn caught_up(&mut self, cursor: EventId) -> serde_json::Result<&mut Self> {
        self.control("tidings.caught_up", Some(cursor), &CaughtUp { cursor })
    }

    pub(crate) fn read(&mut self, change: &ReadChange) -> serde_json::Result<&mut Self> {
        self.control("tidings.read", None, &ReadFrame::from(change))
    }

    pub(crate) fn bye(&mut self, bye: Bye) -> serde_json::Result<&mut Self> {
        self.retry(Duration::from_millis(bye.reconnect_after_ms));
        self.control("tidings.bye", None, &bye)
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }

    fn control(
        &mut self,
        name: &str,
        id: Option<EventId>,
        data: &impl Serialize,
    ) -> serde_json::Result<&mut Self> {
        self.frame(Some(name), id, &serde_json::to_string(data)?);
        Ok(self)
    }

    /// Only what moves the cursor carries an `id:`; an empty one would reset the client's.
    fn frame(&mut self, name: Option<&str>, id: Option<EventId>, data: &str) {
        if let Some(name) = name {
            self.line("event", name);
        }
        if let Some(id) = id {
            self.line("id", &id.to_string());
        }
        for line in data.split(['\r', '\n']) {
            self.line("data", line);
        }
        self.0.push('\n');
    }

    fn line(&mut self, field: &str, value: &str) {
        // Writing to a string cannot fail.
        let _infallible = writeln!(self.0, "{field}: {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_notify::{Draft, Epoch, EventType, Payload};

    #[test]
    fn every_line_of_a_payload_is_framed() {
        let mut writer = SseWriter::default();
        writer.frame(None, None, "one\ntwo\n\nevent: forged");
        assert_eq!(
            writer.into_string(),
            "data: one\ndata: two\ndata: \ndata: event: forged\n\n"
        );
    }

    #[test]
    fn a_notification_has_an_id_and_a_name_only_when_asked() {
        let draft = Draft::new(
            UserId::new("anna").unwrap(),
            EventType::new("comment.created").unwrap(),
            Payload::parse("{\n\"n\": 1\n}").unwrap(),
        );
        let event = Event::from_draft(draft, EventId::new(Epoch::from_u64(255), 3));
        let framed = |naming| {
            let mut writer = SseWriter::default();
            writer.event(&event, naming).unwrap();
            writer.into_string()
        };
        let plain = framed(EventNaming::Message);
        assert!(
            plain.starts_with("id: 00000000000000ff-3\ndata: {\"id\":"),
            "{plain}"
        );
        assert_eq!(plain.matches('\n').count(), 3, "{plain}");
        assert!(framed(EventNaming::Type).starts_with("event: comment.created\nid: "));
    }
}
