//! How Server-Sent Events frame what a stream sends.

use std::fmt::Write;
use std::time::Duration;

use tidings_notify::{Event, EventId};

use crate::wire::frames::{Bye, Control, SSE_PREFIX};

/// How the events of a stream are named for an `EventSource`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventNaming {
    /// No `event:` line, so that `onmessage` receives every notification.
    Message,
    /// Each by its type, for `addEventListener`.
    Type,
}

/// Text in the framing of Server-Sent Events, written one frame after another.
#[derive(Debug, Default)]
pub(crate) struct SseWriter(String);

impl SseWriter {
    /// Sets how long the client waits before it reconnects. It belongs to the frame that follows: some
    /// clients take a block without data for an empty message.
    pub(crate) fn retry(&mut self, wait: Duration) {
        self.line("retry", &wait.as_millis().to_string());
    }

    pub(crate) fn event(&mut self, event: &Event, naming: EventNaming) -> serde_json::Result<()> {
        let name = match naming {
            EventNaming::Message => None,
            EventNaming::Type => Some(event.event_type.as_str()),
        };
        let data = serde_json::to_string(event)?;
        self.frame(name, Some(event.id), &data);
        Ok(())
    }

    pub(crate) fn control(&mut self, control: &Control<'_>) -> serde_json::Result<()> {
        let name = format!("{SSE_PREFIX}{}", control.name());
        let data = serde_json::to_string(control)?;
        self.frame(Some(&name), control.cursor(), &data);
        Ok(())
    }

    pub(crate) fn bye(&mut self, bye: Bye) -> serde_json::Result<()> {
        self.retry(Duration::from_millis(bye.reconnect_after_ms));
        self.control(&Control::Bye(bye))
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }

    /// Only what moves the cursor has an `id:` line; an empty one would reset the client's cursor.
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
    use tidings_notify::{Draft, Epoch, EventType, Payload, UserId};

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
