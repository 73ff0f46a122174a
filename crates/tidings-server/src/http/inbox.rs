//! `/v1/users/{user}/notifications`: the inbox, what is read, and how much is not.

use axum::Json;
use axum::extract::State;
use tidings_notify::{
    DEFAULT_INBOX_LIMIT, EventId, EventType, InboxQuery, MAX_INBOX_LIMIT, ReadScope, StoreError,
    UserId,
};

use super::error::ApiError;
use super::extract::{Body, InPath, Parameters};
use super::fields::Fields;
use crate::app::SharedApp;
use crate::wire::notification::{Inbox, Unread};

pub(crate) async fn list(
    State(app): State<SharedApp>,
    InPath(user): InPath<UserId>,
    parameters: Parameters,
) -> Result<Json<Inbox>, ApiError> {
    let limit = parameters.limit(DEFAULT_INBOX_LIMIT, MAX_INBOX_LIMIT)?;
    let mut query = InboxQuery::default().with_limit(limit);
    if let Some(cursor) = parameters.text("cursor") {
        let cursor = cursor.parse::<EventId>();
        query = query.with_cursor(cursor.map_err(|_| foreign_cursor())?);
    }
    if parameters.parsed("unread", "true or false")? == Some(true) {
        query = query.with_unread_only();
    }
    if let Some(event_type) = parameters.text("type") {
        let event_type = EventType::new(event_type);
        query = query.with_event_type(
            event_type.map_err(|error| ApiError::invalid("type", error.to_string()))?,
        );
    }
    let page = match app.notifier.store().inbox(&user, &query).await {
        Err(StoreError::ForeignCursor) => return Err(foreign_cursor()),
        page => page?,
    };
    Ok(Json(Inbox {
        data: page.events,
        next: page.next,
        unread: page.unread,
    }))
}

fn foreign_cursor() -> ApiError {
    ApiError::invalid(
        "cursor",
        "expected the `next` of an earlier page of this inbox",
    )
}

pub(crate) async fn read(
    State(app): State<SharedApp>,
    InPath(user): InPath<UserId>,
    InPath(id): InPath<String>,
) -> Result<Json<Unread>, ApiError> {
    mark_read(&app, &user, event_id(&id)?).await.map(Json)
}

/// Marks one notification as read; repeating it changes nothing.
pub(crate) async fn mark_read(
    app: &SharedApp,
    user: &UserId,
    id: EventId,
) -> Result<Unread, ApiError> {
    if app.notifier.store().find(user, id).await?.is_none() {
        return Err(unknown_notification());
    }
    let scope = ReadScope::Ids(vec![id]);
    let update = app.notifier.mark_read(user, &scope).await?;
    Ok(Unread {
        unread: update.change.unread,
    })
}

/// Parses the `{id}` of a path; a text that is not an id names no notification.
pub(crate) fn event_id(text: &str) -> Result<EventId, ApiError> {
    text.parse().map_err(|_| unknown_notification())
}

fn unknown_notification() -> ApiError {
    ApiError::not_found("id", "this user has no such notification")
}

/// Marks everything as read, or everything up to a notification that the caller has shown.
pub(crate) async fn read_all(
    State(app): State<SharedApp>,
    InPath(user): InPath<UserId>,
    Body(body): Body,
) -> Result<Json<Unread>, ApiError> {
    let mut fields = Fields::parse_optional(&body)?;
    let up_to: Option<String> = fields.take("up_to")?;
    fields.finish()?;
    let scope = match up_to {
        None => ReadScope::All,
        Some(id) => ReadScope::UpTo(last_read(&app, &user, &id).await?),
    };
    let update = app.notifier.mark_read(&user, &scope).await?;
    Ok(Json(Unread {
        unread: update.change.unread,
    }))
}

/// The notification up to which all are read. It need not be kept any more, but must be of this log.
async fn last_read(app: &SharedApp, user: &UserId, id: &str) -> Result<EventId, ApiError> {
    let head = app.notifier.store().head(user).await?;
    let id = id.parse::<EventId>().ok();
    id.filter(|id| id.epoch == head.epoch && id.seq <= head.top_seq)
        .ok_or_else(|| ApiError::invalid("up_to", "expected the id of a notification of this user"))
}

pub(crate) async fn unread_count(
    State(app): State<SharedApp>,
    InPath(user): InPath<UserId>,
) -> Result<Json<Unread>, ApiError> {
    let head = app.notifier.store().head(&user).await?;
    Ok(Json(Unread {
        unread: head.unread,
    }))
}
