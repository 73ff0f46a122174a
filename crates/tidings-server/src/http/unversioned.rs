//! The four unversioned routes: the same logs in the shapes of a simpler service, so that its
//! clients keep working.

use axum::body;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tidings_notify::{Draft, Epoch, InboxAction, Item, Since, UserId};
use tidings_storage::Accept;
use tidings_storage::idempotency::Once;

use super::body::Body;
use super::error::ApiError;
use super::extract::{InPath, SentKey};
use super::feed::Confirmation;
use super::fields::Fields;
use super::inbox;
use super::notifications::{accept, created, default_type, message_payload};
use super::request::{FromFields, request};
use super::upgrade::Upgrade;
use super::websocket::{self, Form};
use crate::access::Caller;
use crate::app::SharedApp;
use crate::wire::unversioned::Notification;

/// Notifications that one step of the list reads.
const PAGE: usize = 256;

request! {
    /// A message for a user. Other fields are ignored: clients of this route may post a whole notification.
    struct UnversionedNew {
        #[schemars(required)]
        "user_id" user: Option<UserId>,
        #[schemars(required)]
        "message" message: Option<String>,
    }
}

/// `POST /notifications`.
pub(crate) async fn create(
    State(app): State<SharedApp>,
    SentKey(key): SentKey,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let UnversionedNew { user, message } = UnversionedNew::take(&mut Fields::parse(&body)?)?;
    let user = user.ok_or_else(|| ApiError::invalid("user_id", "expected the id of a user"))?;
    let message = message.ok_or_else(|| ApiError::invalid("message", "expected a string"))?;
    let draft = Draft::new(user, default_type()?, message_payload(message)?);
    let once = key.map(|key| Once::new(key, "/notifications", &body));
    let drafts = vec![draft];
    let events = accept(&app, Accept { drafts, once }).await?;
    Ok(created(&events.first().map(Notification::from)))
}

/// `GET /notifications/{user}`: everything that is kept, oldest first.
///
/// The array is written page by page while it is sent, so its length costs no memory.
pub(crate) async fn list(
    State(app): State<SharedApp>,
    InPath(user): InPath<UserId>,
) -> Result<Response, ApiError> {
    if app.notifier.store().head(&user).await?.epoch == Epoch::NONE {
        return Err(ApiError::not_found(
            "user",
            "this user has never had a notification",
        ));
    }
    let list = List {
        app,
        user,
        after: 0,
        state: ListState::Opening,
    };
    let body = body::Body::from_stream(stream::unfold(list, List::next));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

struct List {
    app: SharedApp,
    user: UserId,
    after: u64,
    state: ListState,
}

#[derive(PartialEq, Eq)]
enum ListState {
    Opening,
    First,
    Further,
    Ended,
}

impl List {
    async fn next(
        mut self,
    ) -> Option<(
        Result<String, Box<dyn std::error::Error + Send + Sync>>,
        Self,
    )> {
        match self.state {
            ListState::Ended => return None,
            ListState::Opening => {
                self.state = ListState::First;
                return Some((Ok("[".to_owned()), self));
            }
            ListState::First | ListState::Further => {}
        }
        let chunk = self.page().await;
        if chunk.is_err() {
            // The caller sees by the missing bracket that the array is incomplete.
            self.state = ListState::Ended;
        }
        Some((chunk, self))
    }

    async fn page(&mut self) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        let page = self
            .app
            .notifier
            .store()
            .read(&self.user, self.after, PAGE)
            .await?;
        let mut chunk = String::new();
        for event in &page.events {
            if self.state == ListState::Further {
                chunk.push(',');
            }
            self.state = ListState::Further;
            chunk.push_str(&serde_json::to_string(&Notification::from(event))?);
            self.after = event.id.seq;
        }
        if self.after >= page.head.top_seq || page.events.is_empty() {
            self.state = ListState::Ended;
            chunk.push(']');
        }
        Ok(chunk)
    }
}

/// `POST /notifications/{user}/{id}/read`.
pub(crate) async fn read(
    State(app): State<SharedApp>,
    InPath(user): InPath<UserId>,
    InPath(id): InPath<String>,
) -> Result<StatusCode, ApiError> {
    let id = inbox::event_id(&id)?;
    inbox::change_one(&app, &user, id, InboxAction::Read).await?;
    Ok(StatusCode::OK)
}

/// `GET /ws/{user}`: what has not been sent to any connection of the user, then live notifications.
pub(crate) async fn connect(
    State(app): State<SharedApp>,
    Extension(caller): Extension<Caller>,
    InPath(user): InPath<UserId>,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let (since, confirmation) = (Since::Undelivered, Confirmation::Written);
    websocket::open(
        app,
        &caller,
        user,
        since,
        confirmation,
        upgrade,
        Form::Unversioned,
    )
    .await
}

/// The text of an item: a bare notification, or nothing.
pub(super) fn text_of(user: &UserId, item: &Item) -> serde_json::Result<Option<String>> {
    match item {
        Item::Event(event) => serde_json::to_string(&Notification::from(event.as_ref())).map(Some),
        Item::Gap(gap) => {
            // These frames cannot express it.
            tracing::warn!(%user, ?gap, "queued notifications expired before they were sent");
            Ok(None)
        }
        _ => Ok(None),
    }
}
