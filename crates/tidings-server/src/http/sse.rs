//! `GET /v1/users/{user}/events`: a user's stream as Server-Sent Events.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tidings_notify::{Item, Since};

use super::cursor;
use super::error::ApiError;
use super::extract::{Parameters, User};
use super::feed::{Feed, Step};
use super::frames::{Bye, EventNaming, Hello, SseWriter};
use super::seats::Full;
use crate::app::SharedApp;

/// What a browser waits before it connects again after a loss.
const RETRY: Duration = Duration::from_secs(2);

pub(crate) async fn events(
    State(app): State<SharedApp>,
    User(user): User,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let naming = match parameters.text("event") {
        None | Some("message") => EventNaming::Message,
        Some("type") => EventNaming::Type,
        Some(_) => return Err(ApiError::invalid("event", "expected `type` or `message`")),
    };
    let seat = match app.seats.take(&user) {
        Ok(seat) => seat,
        Err(full) => return refusal(full),
    };
    let since = cursor::since(
        &headers,
        parameters.text("last_event_id"),
        parameters.text("since"),
        Since::Now,
    );
    let subscription = app.notifier.subscribe(user.clone(), since).await?;
    let start = subscription.hello();
    let mut opening = SseWriter::default();
    opening.retry(RETRY).hello(&Hello {
        user_id: &user,
        cursor: start.cursor,
        unread: start.unread,
        ping_interval: app.config.ping_interval,
    })?;
    let feed = Feed::new(
        subscription,
        seat,
        app.config.ping_interval,
        app.stopping.clone(),
    );
    let body = SseBody {
        opening: Some(opening.into_string()),
        feed,
        naming,
        ended: false,
    };
    Ok(answer(Body::from_stream(stream::unfold(
        body,
        SseBody::next,
    ))))
}

/// A full server answers like a stream that ends at once: any other status would make a browser's
/// `EventSource` give up for good.
fn refusal(full: Full) -> Result<Response, ApiError> {
    let mut farewell = SseWriter::default();
    farewell.bye(Bye::full(match full {
        Full::Server => "the server has as many streams as it may",
        Full::User => "the user has as many streams as one user may",
    }))?;
    Ok(answer(Body::from(farewell.into_string())))
}

fn answer(body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-transform"),
    );
    // Asks nginx and its like not to collect the stream before passing it on.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The body of one stream, a chunk at a time.
struct SseBody {
    opening: Option<String>,
    feed: Feed,
    naming: EventNaming,
    ended: bool,
}

impl SseBody {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if self.ended {
            return None;
        }
        if let Some(opening) = self.opening.take() {
            return Some((Ok(opening.into()), self));
        }
        let step = self.feed.step().await;
        let chunk = match self.encode(&step) {
            Ok(chunk) => chunk,
            Err(error) => {
                tracing::error!(%error, "a stream ends because an event could not be written as JSON");
                return None;
            }
        };
        self.ended = matches!(step, Step::Stop);
        Some((Ok(chunk), self))
    }

    fn encode(&self, step: &Step) -> serde_json::Result<Bytes> {
        let mut writer = SseWriter::default();
        match step {
            Step::Ping => return Ok(Bytes::from_static(b": ping\n\n")),
            Step::Stop => {
                writer.bye(Bye::stopping())?;
            }
            Step::Items(items) => {
                for item in items {
                    match item {
                        Item::Event(event) => writer.event(event, self.naming)?,
                        Item::Gap(gap) => writer.gap(gap)?,
                        Item::CaughtUp { cursor } => writer.caught_up(*cursor)?,
                        Item::Read(change) => writer.read(change)?,
                        // A kind of item that this version cannot show.
                        _ => &mut writer,
                    };
                }
            }
        }
        Ok(writer.into_string().into())
    }
}
