//! Reading Server-Sent Events, by the rules of the HTML standard (section 9.2.6).

use std::time::Duration;

use crate::wire::notification::MAX_NOTIFICATION_BYTES;

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SseEvent {
    /// The name; empty for a plain message.
    pub(super) name: String,
    pub(super) data: String,
}

/// Turns the bytes of one connection into whole events.
#[derive(Debug, Default)]
pub(super) struct SseReader {
    unfinished: Vec<u8>,
    /// The last line ended with a carriage return: a line feed after it belongs to the same end.
    after_return: bool,
    /// A line was read, so that a byte order mark no longer stands at the start.
    has_begun: bool,
    event: SseEvent,
    has_data: bool,
    /// The id of the event that is not complete yet.
    id: Option<String>,
    /// What to send as `Last-Event-ID` when reconnecting: the id of the last complete event.
    pub(super) last_event_id: Option<String>,
    /// The server's `retry:`: how long to wait before that.
    pub(super) retry: Option<Duration>,
}

/// Maximum length of a line: a Tidings server sends no longer one. A line is a notification and the name of a field.
const MAX_LINE_BYTES: usize = MAX_NOTIFICATION_BYTES + "data: ".len();

impl SseReader {
    /// Prepares for a new connection: an incomplete event is discarded, and the server sends it again.
    pub(super) fn reconnected(self) -> Self {
        Self {
            last_event_id: self.last_event_id,
            retry: self.retry,
            ..Self::default()
        }
    }

    /// Takes bytes from the front, up to the end of an event. Returns `None` when all are taken and none is complete.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<SseEvent>, LineTooLong> {
        while let Some(byte) = bytes.split_off_first() {
            match byte {
                b'\n' if std::mem::take(&mut self.after_return) => {}
                b'\n' | b'\r' => {
                    self.after_return = *byte == b'\r';
                    let line = std::mem::take(&mut self.unfinished);
                    let line = String::from_utf8_lossy(&line);
                    let is_first = !std::mem::replace(&mut self.has_begun, true);
                    let line = match line.strip_prefix('\u{feff}') {
                        Some(line) if is_first => line,
                        _ => &line,
                    };
                    if let Some(event) = self.line(line) {
                        return Ok(Some(event));
                    }
                }
                byte => {
                    self.after_return = false;
                    self.unfinished.push(*byte);
                    if self.unfinished.len() > MAX_LINE_BYTES {
                        return Err(LineTooLong);
                    }
                }
            }
        }
        Ok(None)
    }

    fn line(&mut self, line: &str) -> Option<SseEvent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if let Some(id) = self.id.take() {
                self.last_event_id = Some(id).filter(|id| !id.is_empty());
            }
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
            "id" => self.id = Some(value.to_owned()),
            "retry" => self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry),
            _ => {}
        }
        None
    }
}

/// A line is longer than [`MAX_LINE_BYTES`].
#[derive(Debug, thiserror::Error)]
#[error("a line of the event stream is too long")]
pub(super) struct LineTooLong;

#[cfg(test)]
mod tests {
    use super::*;

    impl SseReader {
        /// All events that these bytes complete.
        fn feed(&mut self, mut bytes: &[u8]) -> Vec<SseEvent> {
            std::iter::from_fn(|| self.next(&mut bytes).unwrap()).collect()
        }
    }

    #[test]
    fn events_are_whole_however_the_bytes_are_cut() {
        let text = "retry: 1500\n\n: ping\n\nevent: tidings.hello\r\nid: a-1\r\ndata: {}\r\n\r\n\
                    id: a-2\ndata: one\ndata: two é\n\nevent: nothing\n\n";
        for size in [1, 2, 7, text.len()] {
            let mut reader = SseReader::default();
            let events: Vec<_> = text
                .as_bytes()
                .chunks(size)
                .flat_map(|chunk| reader.feed(chunk))
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

    #[test]
    fn a_line_without_end_is_an_error() {
        let mut reader = SseReader::default();
        let longest = vec![b'x'; MAX_LINE_BYTES];
        assert_eq!(reader.feed(&longest), []);
        assert!(reader.next(&mut &b"x"[..]).is_err());
    }

    #[test]
    fn regression_an_event_before_a_line_that_is_too_long_is_read() {
        let mut text = b"id: a-1\ndata: one\n\nid: a-2\ndata: two\n\n".to_vec();
        text.resize(text.len() + MAX_LINE_BYTES + 1, b'x');
        let (mut reader, mut bytes) = (SseReader::default(), &*text);
        for (id, data) in [("a-1", "one"), ("a-2", "two")] {
            let event = reader.next(&mut bytes).unwrap().unwrap();
            assert_eq!(event.data, data);
            assert_eq!(reader.last_event_id.as_deref(), Some(id));
        }
        assert!(reader.next(&mut bytes).is_err());
        assert_eq!(reader.last_event_id.as_deref(), Some("a-2"));
    }

    #[test]
    fn every_line_end_and_a_byte_order_mark_are_read_as_browsers_do() {
        for end in ["\n", "\r", "\r\n"] {
            let text = "\u{feff}id: 1\ndata: one\n\ndata: \u{feff}two\ndata\n\n".replace('\n', end);
            for size in [1, 3, text.len()] {
                let mut reader = SseReader::default();
                let chunks = text.as_bytes().chunks(size);
                let events: Vec<_> = chunks.flat_map(|chunk| reader.feed(chunk)).collect();
                let data: Vec<_> = events.iter().map(|event| event.data.as_str()).collect();
                assert_eq!(data, ["one", "\u{feff}two\n"], "{end:?} {size}");
                assert_eq!(reader.last_event_id.as_deref(), Some("1"));
            }
        }
    }

    #[test]
    fn a_connection_that_breaks_inside_an_event_moves_no_cursor() {
        let text = "id: a-1\ndata: one\n\nid: a-2\ndata: two\n\n";
        for cut in 0..=text.len() {
            let mut reader = SseReader::default();
            let before = reader.feed(&text.as_bytes()[..cut]);
            let cursor = reader.last_event_id.clone();
            assert_eq!(
                cursor.map_or(0, |id| id[2..].parse().unwrap()),
                before.len()
            );
            let mut reader = reader.reconnected();
            let again = reader.feed(b"data: whole\n\n");
            assert_eq!(again[0].data, "whole", "cut at {cut}");
        }
    }
}
