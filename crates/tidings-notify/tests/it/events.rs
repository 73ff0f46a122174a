//! The shape of an event on the wire.

use serde_json::json;
use tidings_notify::{
    Draft, Epoch, Event, EventId, EventKey, EventType, InvalidName, MemoryStore, Payload, Since,
    UserId,
};

use crate::support::{ann, push_numbers, without_sweep};

#[test]
fn regression_payloads_are_json_within_json() {
    let draft = Draft::new(
        ann(),
        EventType::new("comment.created").unwrap(),
        Payload::parse(r#"{ "text": "hi", "n": [1, 2.50] }"#).unwrap(),
    )
    .with_timestamp("2026-01-02T03:04:05.678901999Z".parse().unwrap())
    .with_key(EventKey::new("order-17").unwrap());
    let event = Event::from_draft(draft, EventId::new(Epoch::from_u64(255), 7));
    let text = serde_json::to_string(&event).unwrap();
    assert!(
        text.contains(r#""payload":{"text":"hi","n":[1,2.50]}"#),
        "{text}"
    );
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        value,
        json!({
            "id": "00000000000000ff-7",
            "user_id": "ann",
            "type": "comment.created",
            "payload": {"text": "hi", "n": [1, 2.5]},
            "timestamp": "2026-01-02T03:04:05.678901Z",
            "read_at": null,
            "archived_at": null,
            "key": "order-17",
        })
    );
    assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    // What is not set may be left out.
    let short = text.replace(r#","archived_at":null,"key":"order-17""#, "");
    assert_eq!(serde_json::from_str::<Event>(&short).unwrap().key, None);
}

#[test]
fn regression_nothing_that_goes_on_a_line_can_break_it() {
    let payload = Payload::parse("{\"a\":\r\n [ \"x\\ny\" ] }\n").unwrap();
    assert!(!payload.as_str().contains(['\n', '\r']));
    for text in ["a\nb", "a\rb", "a\u{0}b", "\u{85}", ""] {
        assert!(UserId::new(text).is_err(), "{text:?}");
        assert!(EventType::new(text).is_err(), "{text:?}");
    }
}

#[test]
fn regression_no_event_can_pass_for_a_control_event() {
    for text in ["tidings.gap", "tidings.bye", "tidings."] {
        let refused = EventType::new(text).unwrap_err();
        assert_eq!(refused, InvalidName::Reserved, "{text}");
        assert!(serde_json::from_value::<EventType>(json!(text)).is_err());
        assert!(text.parse::<EventType>().is_err());
        // Only the names of types are ours.
        assert!(UserId::new(text).is_ok());
    }
    for text in ["tidings", "tidingsx.gap", "my.tidings.gap", "Tidings.gap"] {
        assert!(EventType::new(text).is_ok(), "{text}");
    }
}

#[tokio::test]
async fn regression_every_event_and_every_hello_has_an_id_that_is_not_empty() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    assert_eq!(
        stream.take_hello().unwrap().cursor.to_string(),
        "0000000000000000-0"
    );
    for event in push_numbers(&notifier, 0..2).await {
        assert_eq!(event.id.to_string().parse(), Ok(event.id));
    }
}
