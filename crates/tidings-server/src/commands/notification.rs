//! A notification in one line, for people to read.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The parts of a notification that a line shows. The payload is never parsed, so that no digit changes and no payload
/// is too odd to be shown.
#[derive(Deserialize)]
pub(super) struct NotificationLine<'a> {
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    timestamp: String,
    read_at: Option<String>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// A mark if unread, time, id, type and payload.
impl fmt::Display for NotificationLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.read_at.is_none() { '•' } else { ' ' };
        let Self {
            id,
            event_type,
            timestamp,
            payload,
            ..
        } = self;
        write!(f, "{mark} {timestamp}  {id}  {event_type}  {payload}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::document::Document;

    fn line(json: &str) -> String {
        let mut line = Vec::new();
        let document = Document::new(json.to_owned()).unwrap();
        document
            .write_line::<NotificationLine<'_>>(&mut line)
            .unwrap();
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_line_has_the_bytes_of_the_payload() {
        let payload = r#"{"z":12345678901234567890123,"a":1.10,"e":1e400,"s":"\u00e9"}"#;
        let json = format!(
            r#"{{"id":"00000000000000ff-1","user_id":"anna","type":"test","payload":{payload},"timestamp":"2026-11-21T10:00:00Z","read_at":null}}"#
        );
        assert_eq!(
            line(&json),
            format!("• 2026-11-21T10:00:00Z  00000000000000ff-1  test  {payload}\n")
        );
        assert_eq!(line(r#"{"v":1}"#), "{\"v\":1}\n");
    }
}
