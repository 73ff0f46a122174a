//! Notifications as a server sent them, for people to read.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A notification, kept as the text that was received: its payload is never parsed, so that no digit
/// changes and no payload is too odd to be shown.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Notification(Box<RawValue>);

impl Notification {
    pub(super) fn new(json: String) -> serde_json::Result<Self> {
        RawValue::from_string(json).map(Self)
    }

    /// The JSON that was received.
    pub(super) fn json(&self) -> &str {
        self.0.get()
    }
}

/// The parts of a notification that a line shows.
#[derive(Deserialize)]
struct Parts<'a> {
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    timestamp: String,
    read_at: Option<String>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// One line: a mark if unread, time, id, type and payload. Other JSON is shown unchanged.
impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(parts) = serde_json::from_str::<Parts<'_>>(self.json()) else {
            return f.write_str(self.json());
        };
        let mark = if parts.read_at.is_none() { '•' } else { ' ' };
        let Parts {
            id,
            event_type,
            timestamp,
            payload,
            ..
        } = parts;
        write!(f, "{mark} {timestamp}  {id}  {event_type}  {payload}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_bytes_of_the_payload() {
        let payload = r#"{"z":12345678901234567890123,"a":1.10,"e":1e400,"s":"\u00e9"}"#;
        let json = format!(
            r#"{{"id":"00000000000000ff-1","user_id":"anna","type":"test","payload":{payload},"timestamp":"2026-11-21T10:00:00Z","read_at":null}}"#
        );
        let notification = Notification::new(json.clone()).unwrap();
        assert_eq!(
            notification.to_string(),
            format!("• 2026-11-21T10:00:00Z  00000000000000ff-1  test  {payload}")
        );
        assert_eq!(notification.json(), json);
        let other = Notification::new(r#"{"v":1}"#.to_owned()).unwrap();
        assert_eq!(other.to_string(), r#"{"v":1}"#);
    }
}
