//! `POST /v1/notifications` and its batch: accepts events for one or many users.

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use tidings_notify::{Draft, Event, EventKey, EventType, MAX_DRAFTS, Payload, UserId};
use tidings_storage::idempotency::Once;
use tidings_storage::{Accept, Accepted, StorageError};

use super::body::Body;
use super::error::ApiError;
use super::expected::Time;
use super::extract::SentKey;
use super::fields::{Fields, elements};
use super::rate_limit::take_notifications;
use super::request::{FromFields, Raw, request};
use crate::app::SharedApp;
use crate::wire::Data;
use crate::wire::notification::{self, MAX_STORED_BYTES, MessagePayload};

pub(crate) async fn create(
    State(app): State<SharedApp>,
    SentKey(key): SentKey,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let request = Request::parse(Fields::parse(&body)?)?;
    let once = key.map(|key| Once::new(key, "/v1/notifications", &body));
    let is_list = matches!(request.recipients, Recipients::Many(_));
    let mut batch = Batch::default();
    batch.add(request)?;
    let drafts = batch.drafts;
    let data = accept(&app, Accept { drafts, once }).await?;
    let accepted = if is_list {
        Some(notification::Accepted::Many(Data { data }))
    } else {
        data.into_iter().next().map(notification::Accepted::One)
    };
    Ok(created(&accepted))
}

pub(crate) async fn create_batch(
    State(app): State<SharedApp>,
    SentKey(key): SentKey,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let NewBatch { notifications } = NewBatch::read(Fields::parse(&body)?)?;
    let notifications = notifications
        .0
        .ok_or_else(|| ApiError::invalid("notifications", "expected an array of notifications"))?;
    let mut batch = Batch::default();
    let notifications = elements("notifications", notifications)?;
    for (index, element) in notifications.into_iter().enumerate() {
        Fields::of(element)
            .and_then(Request::parse)
            .and_then(|request| batch.add(request))
            .map_err(|error| error.within(&format!("notifications[{index}]")))?;
    }
    if batch.drafts.is_empty() {
        return Err(ApiError::invalid("notifications", "expected at least one"));
    }
    let once = key.map(|key| Once::new(key, "/v1/notifications/batch", &body));
    let drafts = batch.drafts;
    let data = accept(&app, Accept { drafts, once }).await?;
    Ok(created(&Data { data }))
}

/// Accepts notifications within the rates of their users. A repeat takes nothing of the rates, and gets the first
/// response also if they are used up.
pub(crate) async fn accept(app: &SharedApp, accept: Accept) -> Result<Vec<Event>, ApiError> {
    let users = accept.drafts.iter().map(Draft::user);
    let taken = match take_notifications(&app.limits, users) {
        Ok(taken) => taken,
        Err(refused) => {
            return match app.storage.requests.earlier(accept).await? {
                Some(Accepted::Repeated(events)) => Ok(events),
                Some(Accepted::Conflict) => Err(ApiError::idempotency_conflict()),
                Some(Accepted::Stored { .. }) | None => Err(refused),
            };
        }
    };
    match app.acceptor.accept(accept).await {
        Ok(Accepted::Stored { events, .. }) => {
            app.outage.worked();
            Ok(events)
        }
        Ok(Accepted::Repeated(events)) => {
            app.limits.give_back(taken);
            Ok(events)
        }
        Ok(Accepted::Conflict) => {
            app.limits.give_back(taken);
            Err(ApiError::idempotency_conflict())
        }
        Err(error) => {
            // What may have been stored counts.
            if !matches!(error, StorageError::OutcomeUnknown { .. }) {
                app.limits.give_back(taken);
            }
            Err(error.into())
        }
    }
}

/// 201 with a document.
pub(crate) fn created(document: &impl Serialize) -> Response {
    (StatusCode::CREATED, Json(document)).into_response()
}

request! {
    /// A notification for one user, or the same for many.
    #[schemars(deny_unknown_fields, extend("allOf" = [
        { "oneOf": [
            { "required": ["user_id"], "properties": { "user_id": { "type": "string" } } },
            { "required": ["user_ids"], "properties": { "user_ids": { "type": "array" } } },
        ] },
        { "oneOf": [
            { "required": ["payload"] },
            { "required": ["message"], "properties": { "message": { "type": "string" } } },
        ] },
    ]))]
    struct NewNotification<'body> {
        /// The user. Either this or `user_ids` is required.
        "user_id" user: Option<UserId>,
        /// The users; one who is named twice gets one notification.
        #[schemars(length(min = 1, max = MAX_DRAFTS))]
        "user_ids" users: Option<Vec<UserId>>,
        /// What happened; `notification` if it is missing.
        "type" event_type: Option<EventType>,
        /// Any JSON. Either this or `message` is required.
        #[schemars(with = "Option<Payload>")]
        "payload" payload: Raw<'body>,
        /// A text, which becomes the payload `{"message":"…"}`.
        "message" message: Option<String>,
        /// When it happened, up to 9999-12-30T22:00:00Z; stored in microseconds. Now if it is missing.
        "timestamp" timestamp: Option<Time>,
        /// What it is about: it replaces the user's earlier notifications with the same event key.
        "key" key: Option<EventKey>,
    }
}

request! {
    /// Notifications that are stored all or none.
    #[schemars(deny_unknown_fields)]
    struct NewBatch<'body> {
        /// The notifications, at most 10,000 over all their users.
        #[schemars(required, with = "Vec<NewNotification>", length(min = 1, max = MAX_DRAFTS))]
        "notifications" notifications: Raw<'body>,
    }
}

/// A notification as a caller describes it.
#[derive(Debug)]
struct Request {
    recipients: Recipients,
    event_type: EventType,
    /// The field that the payload is from.
    content: &'static str,
    payload: Payload,
    timestamp: Option<Timestamp>,
    key: Option<EventKey>,
}

#[derive(Debug)]
enum Recipients {
    One(UserId),
    Many(Vec<UserId>),
}

impl Request {
    fn parse(fields: Fields<'_>) -> Result<Self, ApiError> {
        let new = NewNotification::read(fields)?;
        let recipients = match (new.user, new.users) {
            (Some(user), None) => Recipients::One(user),
            (None, Some(users)) => Recipients::Many(users),
            (None, None) => {
                return Err(ApiError::invalid(
                    "user_id",
                    "expected `user_id` or `user_ids`",
                ));
            }
            (Some(_), Some(_)) => {
                let expected = "expected either `user_id` or `user_ids`, not both";
                return Err(ApiError::invalid("user_ids", expected));
            }
        };
        let event_type = match new.event_type {
            Some(event_type) => event_type,
            None => default_type()?,
        };
        let (content, payload) = match (new.payload.0, new.message) {
            (Some(payload), None) => ("payload", parse_payload(payload)?),
            (None, Some(message)) => ("message", message_payload(message)?),
            (None, None) => {
                return Err(ApiError::invalid(
                    "payload",
                    "expected `payload` or `message`",
                ));
            }
            (Some(_), Some(_)) => {
                let expected = "expected either `payload` or `message`, not both";
                return Err(ApiError::invalid("message", expected));
            }
        };
        Ok(Self {
            recipients,
            event_type,
            content,
            payload,
            timestamp: new.timestamp.map(|Time(timestamp)| timestamp),
            key: new.key,
        })
    }
}

/// The notifications of one request, within the limits of number and size.
#[derive(Debug, Default)]
struct Batch {
    drafts: Vec<Draft>,
    /// The payloads of all drafts together.
    bytes: usize,
}

impl Batch {
    /// Adds a draft for each recipient.
    fn add(&mut self, request: Request) -> Result<(), ApiError> {
        let (users, number_of, bytes_of) = match request.recipients {
            Recipients::One(user) => (vec![user], "user_id", request.content),
            Recipients::Many(users) if users.is_empty() => {
                return Err(ApiError::invalid("user_ids", "expected at least one user"));
            }
            Recipients::Many(users) => (distinct(users), "user_ids", "user_ids"),
        };
        if self.drafts.len() + users.len() > MAX_DRAFTS {
            let expected = format!("expected at most {MAX_DRAFTS} notifications a request");
            return Err(ApiError::invalid(number_of, expected));
        }
        let more = users.len().saturating_mul(request.payload.as_str().len());
        self.bytes = self.bytes.saturating_add(more);
        if self.bytes > MAX_STORED_BYTES {
            let expected = format!(
                "expected at most {MAX_STORED_BYTES} bytes of payload over all recipients of a request"
            );
            return Err(ApiError::invalid(bytes_of, expected));
        }
        for user in users {
            let mut draft = Draft::new(user, request.event_type.clone(), request.payload.clone());
            if let Some(timestamp) = request.timestamp {
                draft = draft.with_timestamp(timestamp);
            }
            if let Some(key) = &request.key {
                draft = draft.with_key(key.clone());
            }
            self.drafts.push(draft);
        }
        Ok(())
    }
}

/// The type of a notification that was sent without a type.
pub(crate) fn default_type() -> Result<EventType, ApiError> {
    EventType::new("notification").map_err(|error| ApiError::invalid("type", error.to_string()))
}

/// Every user once, in the order of first mention.
fn distinct(users: Vec<UserId>) -> Vec<UserId> {
    let mut mentioned = HashSet::new();
    users
        .into_iter()
        .filter(|user| mentioned.insert(user.clone()))
        .collect()
}

fn parse_payload(raw: &RawValue) -> Result<Payload, ApiError> {
    Payload::parse(raw.get()).map_err(|error| ApiError::invalid("payload", error.to_string()))
}

/// A message is the payload `{"message":"…"}`, which is what the unversioned routes read back.
pub(crate) fn message_payload(message: String) -> Result<Payload, ApiError> {
    Payload::from_value(&MessagePayload { message })
        .map_err(|error| ApiError::invalid("message", error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::http::running::{KEY, Running};

    #[tokio::test]
    async fn what_was_not_stored_does_not_count_as_a_notification() {
        let running = Running::start_with(&["--max-user-notifications=1"]).await;
        running.remove_database();
        for _ in 0..3 {
            let request = running.client.post(running.url("/v1/notifications"));
            let body = json!({ "user_id": "anna", "payload": 1 });
            let response = request.bearer_auth(KEY).json(&body).send().await;
            assert_eq!(response.unwrap().status(), 503);
        }
    }
}
