//! The framing of Server-Sent Events.

use std::fmt::Write;
use std::time::Duration;

use futures_util::stream::{self, Stream};

use super::control::{Bye, Control, Hello};
use super::{MAX_BATCH, MAX_BATCH_BYTES};
use crate::{Event, EventId, Item, Subscription};

/// Before the name of a document that is not a notification, because notifications may be named by their
/// type. No type begins so.
pub const SSE_PREFIX: &str = "tidings.";

/// How long a client waits before it reconnects after a broken connection.
const RETRY: Duration = Duration::from_secs(2);

/// How the events of a stream are named for an `EventSource`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EventNaming {
    /// No `event:` line, so that `onmessage` receives every notification.
    #[default]
    Message,
    /// Each by its type, for `addEventListener`. Those of the types `error` and `open` have no name, because an
    /// `EventSource` would run its handlers of the connection.
    Type,
}

/// Whether an `EventSource` calls events of its own so.
fn is_of_source(name: &str) -> bool {
    matches!(name, "error" | "open")
}

/// Text in the framing of Server-Sent Events, written one frame after another.
///
/// Its calls return an error if a document has no JSON, which those of this package have.
#[derive(Debug, Default)]
pub struct SseWriter(String);

#[allow(
    clippy::missing_errors_doc,
    reason = "the type says when they return one"
)]
impl SseWriter {
    /// Writes the beginning of a stream.
    pub fn hello(&mut self, hello: Hello<'_>) -> serde_json::Result<()> {
        self.retry(RETRY);
        self.control(&Control::Hello(hello))
    }

    /// Writes an item of a stream.
    pub fn item(&mut self, item: &Item, naming: EventNaming) -> serde_json::Result<()> {
        match (item, Control::of(item)) {
            (Item::Event(event), _) => self.event(event, naming),
            (_, Some(control)) => self.control(&control),
            (_, None) => Ok(()),
        }
    }

    /// Writes a notification.
    pub fn event(&mut self, event: &Event, naming: EventNaming) -> serde_json::Result<()> {
        let name = match naming {
            EventNaming::Message => None,
            EventNaming::Type => Some(event.event_type.as_str()).filter(|name| !is_of_source(name)),
        };
        let data = serde_json::to_string(event)?;
        self.frame(name, Some(event.id), &data);
        Ok(())
    }

    /// Writes a document that is not a notification.
    pub fn control(&mut self, control: &Control<'_>) -> serde_json::Result<()> {
        let name = format!("{SSE_PREFIX}{}", control.name());
        let data = serde_json::to_string(control)?;
        self.frame(Some(&name), control.cursor(), &data);
        Ok(())
    }

    /// Writes the end of a stream.
    pub fn bye(&mut self, bye: Bye) -> serde_json::Result<()> {
        self.retry(Duration::from_millis(bye.reconnect_after_ms));
        self.control(&Control::Bye(bye))
    }

    /// Writes what keeps a silent connection alive: a comment without an empty line, because some clients
    /// take a block without data for an empty message.
    pub fn ping(&mut self) {
        self.0.push_str(": ping\n");
    }

    /// What has been written.
    pub fn into_string(self) -> String {
        self.0
    }

    /// Sets how long the client waits before it reconnects. It belongs to the frame that follows, for the
    /// same reason.
    fn retry(&mut self, wait: Duration) {
        self.line("retry", &wait.as_millis().to_string());
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

/// A user's stream as the body of a response: text in chunks, from the hello to the bye, with a ping after
/// each `ping_interval` without anything else.
///
/// What is handed over counts as [sent](Subscription::sent) when the next chunk is asked for. When the
/// notifier is closed the stream says `bye`, and ends.
///
/// ```
/// use std::{sync::Arc, time::Duration};
///
/// use futures_util::StreamExt;
/// use tidings_notify::{MemoryStore, Notifier, Since, UserId, wire};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let notifier = Notifier::new(Arc::new(MemoryStore::new()));
/// let stream = notifier.subscribe(UserId::new("ann")?, Since::Now).await?;
/// let naming = wire::EventNaming::Message;
/// let body = wire::server_sent_events(stream, naming, Duration::from_secs(20));
///
/// let opening = std::pin::pin!(body).next().await.ok_or("ended")??;
/// assert!(opening.starts_with("retry: 2000\nevent: tidings.hello\nid: "));
/// # Ok(()) }
/// ```
pub fn server_sent_events(
    subscription: Subscription,
    naming: EventNaming,
    ping_interval: Duration,
) -> impl Stream<Item = serde_json::Result<String>> + Send + 'static {
    let body = Body {
        subscription,
        naming,
        ping_interval,
        has_ended: false,
        has_unsent: false,
    };
    stream::unfold(body, async |mut body| {
        let chunk = body.next().await?;
        Some((chunk, body))
    })
}

struct Body {
    subscription: Subscription,
    naming: EventNaming,
    ping_interval: Duration,
    has_ended: bool,
    /// Events were handed over that are not marked as sent.
    has_unsent: bool,
}

impl Body {
    async fn next(&mut self) -> Option<serde_json::Result<String>> {
        if self.has_ended {
            return None;
        }
        let mut writer = SseWriter::default();
        let written = if let Some(start) = self.subscription.take_hello() {
            let user = self.subscription.user();
            writer.hello(Hello::new(user, start, self.ping_interval))
        } else {
            self.write_next(&mut writer).await
        };
        self.has_ended |= written.is_err();
        Some(written.map(|()| writer.into_string()))
    }

    async fn write_next(&mut self, writer: &mut SseWriter) -> serde_json::Result<()> {
        // A stream that begins at the end of the log has not sent what is before it.
        if std::mem::take(&mut self.has_unsent) {
            self.subscription.sent(self.subscription.cursor());
        }
        let batch = self.subscription.next_batch(MAX_BATCH, MAX_BATCH_BYTES);
        match tokio::time::timeout(self.ping_interval, batch).await {
            Ok(Ok(items)) => {
                self.has_unsent = items.iter().any(|item| matches!(item, Item::Event(_)));
                items
                    .iter()
                    .try_for_each(|item| writer.item(item, self.naming))
            }
            Ok(Err(_closed)) => {
                self.has_ended = true;
                writer.bye(Bye::stopping())
            }
            Err(_silence) => {
                writer.ping();
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Draft, Epoch, EventType, Payload, UserId};

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

    #[test]
    fn regression_no_notification_runs_a_handler_of_the_connection() {
        for (name, has_name) in [
            ("error", false),
            ("open", false),
            ("Error", true),
            ("opened", true),
        ] {
            let draft = Draft::new(
                UserId::new("anna").unwrap(),
                EventType::new(name).unwrap(),
                Payload::parse("1").unwrap(),
            );
            let event = Event::from_draft(draft, EventId::new(Epoch::from_u64(255), 3));
            let mut writer = SseWriter::default();
            writer.event(&event, EventNaming::Type).unwrap();
            let text = writer.into_string();
            let line = format!("event: {name}\n");
            assert_eq!(text.starts_with(&line), has_name, "{text}");
            assert_eq!(text.contains("event:"), has_name, "{text}");
        }
    }
}
