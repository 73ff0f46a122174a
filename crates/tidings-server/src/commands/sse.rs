//! Reading Server-Sent Events, by the rules of the HTML standard (section 9.2.6).

use std::time::Duration;

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SseEvent {
    /// The name; empty for a plain message.
    pub(super) name: String,
    pub(super) data: String,
}

/// Takes bytes as they arrive and gives whole events.
#[derive(Debug, Default)]
pub(super) struct SseReader {
    unfinished: Vec<u8>,
    event: SseEvent,
    has_data: bool,
    /// What to send as `Last-Event-ID` when connecting again.
    pub(super) last_event_id: Option<String>,
    /// How long the server asked to wait before that.
    pub(super) retry: Option<Duration>,
}

/// Longest line taken: a server that sends a longer one is not ours.
const MAX_LINE_BYTES: usize = 16 << 20;

impl SseReader {
    /// Adds bytes; answers the events that they complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<SseEvent>, LineTooLong> {
        let mut events = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.unfinished.extend_from_slice(part);
            if self.unfinished.len() > MAX_LINE_BYTES {
                return Err(LineTooLong);
            }
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.unfinished);
                let line = String::from_utf8_lossy(&line);
                events.extend(self.line(line.trim_end_matches(['\r', '\n'])));
            }
        }
        Ok(events)
    }

    fn line(&mut self, line: &str) -> Option<SseEvent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            "id" => self.last_event_id = Some(value.to_owned()).filter(|id| !id.is_empty()),
            "retry" => self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry),
            _ => {}
        }
        None
    }
}

/// A line has no end.
#[derive(Debug, thiserror::Error)]
#[error("the server sends a line that is too long for an event stream")]
pub(super) struct LineTooLong;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_however_the_bytes_are_cut() {
        let text = "retry: 1500\n\n: ping\n\nevent: tidings.hello\r\nid: a-1\r\ndata: {}\r\n\r\n\
                    id: a-2\ndata: one\ndata: two é\n\nevent: nothing\n\n";
        for size in [1, 2, 7, text.len()] {
            let mut reader = SseReader::default();
            let events: Vec<_> = text
                .as_bytes()
                .chunks(size)
                .flat_map(|chunk| reader.feed(chunk).unwrap())
                .collect();
            assert_eq!(
                events,
                [
                    SseEvent {
                        name: "tidings.hello".into(),
                        data: "{}".into()
                    },
                    SseEvent {
                        name: String::new(),
                        data: "one\ntwo é".into()
                    },
                ]
            );
            assert_eq!(reader.last_event_id.as_deref(), Some("a-2"));
            assert_eq!(reader.retry, Some(Duration::from_millis(1500)));
        }
    }
}
