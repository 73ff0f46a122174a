//! `/v1/users/{user}/notifications`: the inbox, its states, and its counts.

use axum::Json;
use axum::extract::State;
use tidings_notify::wire::Counts;
use tidings_notify::{
    DEFAULT_INBOX_LIMIT, EventId, EventType, InboxAction, InboxQuery, MAX_INBOX_LIMIT, StoreError,
    UserId,
};
use tidings_storage::idempotency;

use super::body::Body;
use super::error::ApiError;
use super::extract::{InPath, Parameters, SentKey};
use super::fields::Fields;
use super::request::{FromFields, request};
use crate::app::SharedApp;
use crate::wire::notification::Inbox;

pub(crate) async fn list(
    State(app): State<SharedApp>,
    InPath(user): InPath<UserId>,
    parameters: Parameters,
) -> Result<Json<Inbox>, ApiError> {
    let limit = parameters.limit(DEFAULT_INBOX_LIMIT, MAX_INBOX_LIMIT)?;
    let mut query = InboxQuery::default().with_limit(limit);
    if let Some(cursor) = parameters.text("cursor")? {
        let cursor: EventId = cursor.parse().map_err(|_| foreign_cursor())?;
        if !is_of_log(&app, &user, cursor).await? {
            return Err(foreign_cursor());
        }
        query = query.with_cursor(cursor);
    }
    if parameters.parsed("unread", "true or false")? == Some(true) {
        query = query.with_unread_only();
    }
    if parameters.parsed("archived", "true or false")? == Some(true) {
        query = query.with_archived_only();
    }
    if let Some(event_type) = parameters.text("type")? {
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
        counts: Counts::from(&page),
        data: page.events,
        next: page.next,
    }))
}

fn foreign_cursor() -> ApiError {
    ApiError::invalid(
        "cursor",
        "expected the `next` of an earlier page of this inbox",
    )
}

/// What a caller does with one notification.
pub(crate) type OnOne = fn(Vec<EventId>) -> InboxAction;

/// `POST …/{id}/read`, `…/unread`, `…/archive` and `…/unarchive`.
pub(crate) async fn on_one(
    app: SharedApp,
    user: UserId,
    id: String,
    action: OnOne,
) -> Result<Json<Counts>, ApiError> {
    change_one(&app, &user, event_id(&id)?, action)
        .await
        .map(Json)
}

/// Changes one notification; repeating it changes nothing.
pub(crate) async fn change_one(
    app: &SharedApp,
    user: &UserId,
    id: EventId,
    action: OnOne,
) -> Result<Counts, ApiError> {
    if app.notifier.store().find(user, id).await?.is_none() {
        return Err(unknown_notification());
    }
    change(app, user, &action(vec![id])).await
}

async fn change(app: &SharedApp, user: &UserId, action: &InboxAction) -> Result<Counts, ApiError> {
    let update = app.notifier.change(user, action).await?;
    if update.changed > 0 {
        app.outage.worked();
    }
    Ok((&update.change).into())
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
    key: SentKey,
    Body(body): Body,
) -> Result<Json<Counts>, ApiError> {
    let action = match up_to(&app, &user, &key, &body).await? {
        None => InboxAction::ReadAll,
        Some(id) => InboxAction::ReadUpTo(id),
    };
    change(&app, &user, &action).await.map(Json)
}

/// Marks everything as seen, or everything up to a notification.
pub(crate) async fn seen(
    State(app): State<SharedApp>,
    InPath(user): InPath<UserId>,
    key: SentKey,
    Body(body): Body,
) -> Result<Json<Counts>, ApiError> {
    let action = match up_to(&app, &user, &key, &body).await? {
        None => InboxAction::SeeAll,
        Some(id) => InboxAction::SeeUpTo(id),
    };
    change(&app, &user, &action).await.map(Json)
}

/// Marks everything up to a notification as seen.
pub(crate) async fn see_up_to(
    app: &SharedApp,
    user: &UserId,
    id: EventId,
) -> Result<Counts, ApiError> {
    if !is_of_log(app, user, id).await? {
        return Err(unknown_notification());
    }
    change(app, user, &InboxAction::SeeUpTo(id)).await
}

request! {
    /// How far a change goes.
    #[schemars(deny_unknown_fields)]
    struct UpTo {
        /// The last notification of the change; all of them if it is missing.
        #[schemars(with = "Option<EventId>")]
        "up_to" up_to: Option<String>,
    }
}

/// The notification up to which a request goes, if it names one. With an idempotency key it must: otherwise a
/// repeat would also change what has come meanwhile.
async fn up_to(
    app: &SharedApp,
    user: &UserId,
    SentKey(key): &SentKey,
    body: &[u8],
) -> Result<Option<EventId>, ApiError> {
    let UpTo { up_to } = UpTo::read(Fields::parse_optional(body)?)?;
    let Some(up_to) = up_to else {
        return match key {
            None => Ok(None),
            Some(_) => Err(ApiError::invalid(
                idempotency::NAME,
                "supported by this route only beside `up_to`",
            )),
        };
    };
    match up_to.parse() {
        // The cursor of an inbox that was empty, and need not be any more.
        Ok(EventId::ORIGIN) => {
            let head = app.notifier.store().head(user).await?;
            Ok(Some(EventId::new(head.epoch, 0)))
        }
        Ok(id) if is_of_log(app, user, id).await? => Ok(Some(id)),
        _ => Err(ApiError::invalid(
            "up_to",
            "expected the id of a notification of this user",
        )),
    }
}

/// Whether the user's present log has had this notification. It need not be kept any more.
async fn is_of_log(app: &SharedApp, user: &UserId, id: EventId) -> Result<bool, ApiError> {
    let head = app.notifier.store().head(user).await?;
    Ok(id.epoch == head.epoch && id.seq <= head.top_seq)
}

pub(crate) async fn unread_count(
    State(app): State<SharedApp>,
    InPath(user): InPath<UserId>,
) -> Result<Json<Counts>, ApiError> {
    let head = app.notifier.store().head(&user).await?;
    Ok(Json((&head).into()))
}
