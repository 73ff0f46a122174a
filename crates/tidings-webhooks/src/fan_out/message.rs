//! Accepted events as messages of a stream, written and read.

use tidings_stream::{Message, NewMessage};

use crate::WebhookEvent;
use crate::store::AcceptedEvent;

/// Most events, and bytes of JSON, of one message of the stream, except for a larger single event.
const EVENTS_PER_MESSAGE: usize = 256;
const BYTES_PER_MESSAGE: usize = 256 << 10;

/// The header with the number of the newest endpoint at the time of acceptance. A message of an
/// earlier version has none: its events are for every endpoint.
const NEWEST_ENDPOINT: &str = "newest-endpoint";

/// What is published for these events.
pub(crate) fn write(
    events: &[WebhookEvent],
    newest_endpoint: u64,
) -> Result<Vec<NewMessage>, serde_json::Error> {
    let message = |json: String| {
        NewMessage::new(json).with_header(NEWEST_ENDPOINT, newest_endpoint.to_string())
    };
    let mut messages = Vec::new();
    let mut json = String::from("[");
    let mut count = 0;
    for event in events {
        let event = serde_json::to_string(event)?;
        if count == EVENTS_PER_MESSAGE
            || (count > 0 && json.len() + event.len() > BYTES_PER_MESSAGE)
        {
            json.push(']');
            messages.push(message(std::mem::replace(&mut json, "[".to_owned())));
            count = 0;
        }
        if count > 0 {
            json.push(',');
        }
        json.push_str(&event);
        count += 1;
    }
    if count > 0 {
        json.push(']');
        messages.push(message(json));
    }
    Ok(messages)
}

/// The events of a message, in order.
pub(super) fn read(message: &Message) -> Result<Vec<AcceptedEvent>, serde_json::Error> {
    let header = message.headers.get(NEWEST_ENDPOINT);
    let newest_endpoint = match header {
        Some(number) => number.parse().map_err(serde::de::Error::custom)?,
        None => AcceptedEvent::EVERY_ENDPOINT,
    };
    let events: Vec<WebhookEvent> = serde_json::from_slice(&message.payload)?;
    if let Some(event) = events.iter().find(|event| !event.is_storable()) {
        let unusable = format!("the event {:?} of type {:?}", event.id, event.event_type);
        let refused = unusable + " has an id or a type that cannot be stored";
        return Err(serde::de::Error::custom(refused));
    }
    let accepted = |event| AcceptedEvent {
        event,
        newest_endpoint,
    };
    Ok(events.into_iter().map(accepted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_notify::{EventType, Payload};

    fn event(bytes: usize) -> WebhookEvent {
        let payload = Payload::from_value(&"x".repeat(bytes)).unwrap();
        WebhookEvent::new(&EventType::new("order.paid").unwrap(), payload)
    }

    fn read(messages: &[NewMessage]) -> Vec<Vec<WebhookEvent>> {
        let read = |message: &NewMessage| serde_json::from_slice(&message.payload).unwrap();
        messages.iter().map(read).collect()
    }

    #[test]
    fn events_are_published_in_order_in_messages_of_bounded_size() {
        let events: Vec<_> = (0..600).map(|_| event(10)).collect();
        let messages = read(&write(&events, 7).unwrap());
        assert_eq!(messages.len(), 3);
        assert_eq!(messages.concat(), events);

        let events: Vec<_> = (0..3).map(|_| event(200_000)).collect();
        let messages = write(&events, 7).unwrap();
        assert_eq!(messages.len(), 3);
        assert_eq!(read(&messages).concat(), events);
        assert!(write(&[], 7).unwrap().is_empty());
    }
}
