//! Accepted events as messages of a stream, written and read.

use tidings_stream::{Message, NewMessage};

use crate::WebhookEvent;
use crate::store::AcceptedEvent;

/// Most events, and bytes of JSON, of one message of the stream, except for a larger single event.
const EVENTS_PER_MESSAGE: usize = 256;
const BYTES_PER_MESSAGE: usize = 256 << 10;

/// The header with the number of the newest endpoint at the time of acceptance.
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
    let number = header.ok_or_else(|| serde::de::Error::missing_field(NEWEST_ENDPOINT))?;
    let newest_endpoint = number.parse().map_err(serde::de::Error::custom)?;
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
    use jiff::Timestamp;
    use tidings_notify::{EventType, Payload};
    use tidings_stream::{MessageId, StreamName};

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

    #[test]
    fn a_message_that_does_not_say_which_endpoints_there_were_is_refused() {
        let stream = StreamName::new("app", "default", "events").unwrap();
        let message = |content: &NewMessage| {
            let (id, at) = (MessageId::from_u64(1), Timestamp::UNIX_EPOCH);
            Message::new(id, stream.clone(), content.clone(), at, 1)
        };
        let [written] = &write(&[event(10)], 7).unwrap()[..] else {
            panic!("expected one message")
        };
        let accepted = super::read(&message(written)).unwrap();
        assert_eq!(accepted[0].newest_endpoint, 7);
        let json = written.payload.clone();
        super::read(&message(&NewMessage::new(json.clone()))).unwrap_err();
        let odd = NewMessage::new(json).with_header(NEWEST_ENDPOINT, "x");
        super::read(&message(&odd)).unwrap_err();
    }
}
