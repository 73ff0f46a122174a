//! `docs/http.md` and `docs/protocol.md` against the types.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tidings_notify::wire::{
    self, Bye, Control, Counts, Expiring, Hello, Request, SSE_PREFIX, WebSocketFrame,
};
use tidings_notify::{
    Changed, Draft, Epoch, Event, EventId, EventType, Gap, GapReason, InboxChange, Item, Payload,
    UserId,
};
use tidings_storage::{DatabaseUrl, Scope, Scopes, Storage};
use tidings_webhooks::{
    AttemptRecord, DeliveryQuery, EndpointSettings, EventPattern, NewEndpoint, Options, Owner,
    Webhooks,
};

use super::api_key::{ApiKey, CreatedApiKey};
use super::code::Code;
use super::notification::Inbox;
use super::presence::UserPresence;
use super::webhook::{
    CreatedEndpoint, EndpointWithHealth, RotatedSecret, SentMessage, TestDelivery,
};
use super::whoami::WhoAmI;
use super::{Data, ErrorBody, ErrorDescription, Page, unversioned};
use crate::access::{Caller, new_key};

const DOCUMENT: &str = concat!(
    include_str!("../../../../docs/http.md"),
    include_str!("../../../../docs/protocol.md"),
);

fn id(seq: u64) -> EventId {
    EventId::new(Epoch::from_u64(0x6f1c_0a52_d3e8_4b97), seq)
}

fn event() -> Event {
    let draft = Draft::new(
        UserId::new("anna").unwrap(),
        EventType::new("greeting").unwrap(),
        Payload::parse(r#"{"text":"Hello"}"#).unwrap(),
    );
    Event::from_draft(
        draft.with_timestamp("2026-11-21T10:00:00Z".parse().unwrap()),
        id(17),
    )
}

fn change() -> InboxChange {
    InboxChange {
        what: Changed::Read([id(17)].into()),
        unread: 2,
        unseen: 1,
        cursor: id(17),
    }
}

fn counts() -> Counts {
    Counts::from(&change())
}

fn api_key() -> ApiKey {
    let scopes = Scopes::new(vec![Scope::Publish, Scope::Read]).unwrap();
    ApiKey::from(new_key("shop".to_owned(), scopes, None).unwrap().1)
}

fn control(item: &Item) -> Control<'static> {
    Control::of(item).unwrap()
}

pub(crate) fn controls(user: &UserId) -> [Control<'_>; 6] {
    let start = tidings_notify::Hello {
        cursor: id(16),
        top: id(17),
        unread: 3,
        unseen: 1,
    };
    [
        Control::Hello(Hello::new(user, start, Duration::from_secs(20))),
        control(&Item::CaughtUp { cursor: id(17) }),
        control(&Item::Gap(Gap {
            from: Some(id(2)),
            to: id(9),
            reason: GapReason::Expired,
        })),
        control(&Item::Changed(change())),
        Control::Expiring(Expiring::new("2026-11-21T10:00:00Z".parse().unwrap())),
        Control::Bye(Bye::stopping()),
    ]
}

/// The lines of the code blocks of `docs/http.md` and `docs/protocol.md` that are JSON objects.
fn samples() -> Vec<Value> {
    DOCUMENT
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

fn json(document: impl serde::Serialize) -> Value {
    serde_json::to_value(document).unwrap()
}

/// The words after a marker in a text, up to the first character that no name has.
fn names_after<'a>(text: &'a str, marker: &str) -> BTreeSet<&'a str> {
    let is_end = |c: char| !(c.is_ascii_lowercase() || c == '_');
    let parts = text.split(marker).skip(1);
    parts
        .filter_map(|part| part.split(is_end).next())
        .filter(|name| !name.is_empty())
        .collect()
}

/// The shapes of endpoints, deliveries and attempts.
async fn webhook_shapes() -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let url = DatabaseUrl::Sqlite(folder.path().join("tidings.db"));
    let storage = Storage::open(&url, None).await.unwrap();
    let (store, streams) = (storage.webhooks.clone(), storage.streams.clone());
    let webhooks = Webhooks::start(store, streams, Options::default()).await;
    let webhooks = webhooks.unwrap();
    let mut settings = EndpointSettings::new("http://127.0.0.1:1/");
    settings.event_types = vec![EventPattern::new("order.*").unwrap()];
    let new = NewEndpoint::new(Owner::Operator, settings);
    let (endpoint, _) = webhooks.create_endpoint(new).await.unwrap();
    let health = webhooks.health(endpoint.id).await.unwrap().unwrap();
    let delivery_id = webhooks.send_test(endpoint.id).await.unwrap().unwrap();
    let deliveries = webhooks
        .deliveries(&DeliveryQuery::newest(1))
        .await
        .unwrap();
    webhooks.stop_within(Duration::ZERO).await;
    storage.close().await;
    let attempt = AttemptRecord::new(1, deliveries[0].created_at, Duration::ZERO);
    let secret = || "whsec_…".to_owned();
    vec![
        json(&endpoint),
        json(CreatedEndpoint {
            endpoint: endpoint.clone(),
            secret: secret(),
        }),
        json(EndpointWithHealth { endpoint, health }),
        json(Page {
            data: deliveries,
            next: None,
        }),
        json(Data { data: [attempt] }),
        json(SentMessage {
            body: String::new(),
        }),
        json(TestDelivery { delivery_id }),
        json(RotatedSecret { secret: secret() }),
    ]
}

#[tokio::test]
async fn every_sample_of_the_document_has_the_shape_of_the_types() {
    let (event, user) = (event(), UserId::new("anna").unwrap());
    let mut shapes = vec![
        json(&event),
        json(Data {
            data: [event.clone()],
        }),
        json(Inbox {
            data: vec![event.clone()],
            next: None,
            counts: counts(),
        }),
        json(counts()),
        json(UserPresence {
            user_id: user.clone(),
            online: true,
        }),
        json(Data {
            data: [UserPresence {
                user_id: user.clone(),
                online: true,
            }],
        }),
        json(CreatedApiKey {
            described: api_key(),
            key: "tk_…".to_owned(),
        }),
        json(Data { data: [api_key()] }),
        json(WhoAmI::from(&Caller::Operator)),
        json(unversioned::Notification::from(&event)),
        json(WebSocketFrame::from(&event)),
        json(ErrorBody {
            error: ErrorDescription {
                code: Code::InvalidField,
                message: String::new(),
                field: Some(String::new()),
                request_id: None,
            },
        }),
        json(ErrorBody {
            error: ErrorDescription {
                code: Code::StorageFull,
                message: String::new(),
                field: None,
                request_id: Some(String::new()),
            },
        }),
        json(WebSocketFrame::error(ErrorDescription {
            code: Code::NotFound,
            message: String::new(),
            field: Some(String::new()),
            request_id: None,
        })),
    ];
    shapes.extend(webhook_shapes().await);
    shapes.extend(controls(&user).map(|control| json(WebSocketFrame::from(control))));
    shapes.push(json(WebSocketFrame::ping()));
    let samples = samples();
    for shape in &shapes {
        assert!(
            samples.iter().any(|sample| same_shape(sample, shape)),
            "docs/http.md and docs/protocol.md have no sample of {shape}"
        );
    }
    for sample in &samples {
        let is_request = serde_json::from_value::<Request>(sample.clone()).is_ok();
        assert!(
            is_request || shapes.iter().any(|shape| same_shape(sample, shape)),
            "docs/http.md or docs/protocol.md has a sample of an unknown shape: {sample}"
        );
    }
}

/// Whether two values have the same fields, the same `event`, and values of the same kinds; `null`
/// is a value of every kind.
fn same_shape(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Null, _) | (_, Value::Null) => true,
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.get("event") == right.get("event")
                && left.iter().all(|(key, value)| {
                    right.get(key).is_some_and(|other| same_shape(value, other))
                })
        }
        (Value::Array(left), Value::Array(right)) => left
            .iter()
            .all(|left| right.iter().all(|right| same_shape(left, right))),
        _ => std::mem::discriminant(left) == std::mem::discriminant(right),
    }
}

#[test]
fn the_document_knows_every_control_event_by_its_name() {
    let user = UserId::new("anna").unwrap();
    let names = controls(&user).map(|control| control.name());
    assert_eq!(
        names_after(DOCUMENT, &format!("`event: {SSE_PREFIX}")),
        names.into_iter().collect(),
    );
    let framed = names_after(DOCUMENT, "{\"event\":\"");
    let mut expected: BTreeSet<_> = names.into_iter().collect();
    expected.extend([wire::NOTIFICATION, wire::ERROR, wire::PING]);
    assert_eq!(framed, expected);
}

#[test]
fn the_document_lists_every_error_code_with_its_status_and_no_other() {
    let (_, section) = DOCUMENT.split_once("\n## Errors\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let is_code = |text: &&str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let mut listed = BTreeSet::new();
    for row in section.lines().filter_map(|line| line.strip_prefix("| ")) {
        let Some((status, codes)) = row.split_once(" | ") else {
            continue;
        };
        let Ok(status) = status.parse::<u16>() else {
            continue;
        };
        let codes = codes.split('`').skip(1).step_by(2).filter(is_code);
        listed.extend(codes.map(|code| (status, code.to_owned())));
    }
    let named = |code: &Code| json(code).as_str().unwrap().to_owned();
    let coded = Code::ALL
        .iter()
        .map(|code| (code.status().as_u16(), named(code)));
    assert_eq!(listed, coded.collect());
}

#[test]
fn the_document_names_every_reason_of_a_gap() {
    for reason in [
        GapReason::Invalid,
        GapReason::UnknownEpoch,
        GapReason::Expired,
        GapReason::Ahead,
    ] {
        assert!(DOCUMENT.contains(&format!("`{}`", reason.as_str())));
    }
}

#[test]
fn only_notifications_have_no_control_frame() {
    assert!(Control::of(&Item::Event(std::sync::Arc::new(event()))).is_none());
    assert!(Control::of(&Item::CaughtUp { cursor: id(1) }).is_some());
    assert_eq!(
        json(WebSocketFrame::from(&event())),
        json!({ "event": "notification", "data": json(event()) })
    );
}
