//! `GET /v1/users/{user}/events`: a user's stream as Server-Sent Events.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tidings_notify::UserId;
use tidings_notify::wire::{Bye, Control, EventNaming, Expiring, Hello, SseWriter};
use tracing::{Instrument, Span};

use super::cursor;
use super::error::ApiError;
use super::extract::{InPath, Parameters};
use super::feed::{Confirmation, Feed, Step};
use crate::access::Caller;
use crate::app::SharedApp;
use crate::connections::ClientConnection;

/// Time between pings when the client has closed its sending half: if it has closed the whole
/// connection, writing is what shows it.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) async fn events(
    State(app): State<SharedApp>,
    Extension(connection): Extension<ClientConnection>,
    Extension(caller): Extension<Caller>,
    InPath(user): InPath<UserId>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let naming = match parameters.text("event")? {
        None | Some("message") => EventNaming::Message,
        Some("type") => EventNaming::Type,
        Some(_) => return Err(ApiError::invalid("event", "expected `type` or `message`")),
    };
    let permit = match app.permits.take(&user) {
        Ok(permit) => permit,
        Err(full) => return refusal(Bye::full(full.reason())),
    };
    let since = cursor::since(&headers, &parameters)?;
    let subscription = app.notifier.subscribe(user.clone(), since).await?;
    let start = subscription.hello();
    let mut opening = SseWriter::default();
    opening.hello(Hello::new(&user, start, app.config.ping_interval))?;
    let feed = Feed::new(
        subscription,
        permit,
        app.tracker.register(user.clone())?,
        Confirmation::Written,
        app.config.ping_interval,
        app.farewell.group(),
        caller.validity(),
    );
    let body = SseBody {
        opening: Some(opening.into_string()),
        feed,
        connection,
        newest_chunk: 0,
        is_probing: false,
        naming,
        ended: false,
    };
    let span = Span::current();
    let body = stream::unfold(body, move |body| body.next().instrument(span.clone()));
    Ok(response(Body::from_stream(body)))
}

/// A stream that ends at once: with any other status an `EventSource` would not reconnect.
pub(super) fn refusal(bye: Bye) -> Result<Response, ApiError> {
    let mut body = SseWriter::default();
    body.bye(bye)?;
    Ok(response(Body::from(body.into_string())))
}

fn response(body: Body) -> Response {
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
    // nginx and similar proxies must not buffer the stream.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The body of one stream, a chunk at a time.
struct SseBody {
    opening: Option<String>,
    feed: Feed,
    connection: ClientConnection,
    /// The number of the chunk that was handed over last.
    newest_chunk: u64,
    /// The client has closed its sending half.
    is_probing: bool,
    naming: EventNaming,
    ended: bool,
}

impl SseBody {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if self.ended {
            return None;
        }
        let chunk = match self.opening.take() {
            Some(opening) => opening.into(),
            None => self.next_chunk().await?,
        };
        self.newest_chunk = self.connection.progress().hand_over();
        Some((Ok(chunk), self))
    }

    async fn next_chunk(&mut self) -> Option<Bytes> {
        let progress = self.connection.progress();
        let mut is_confirmed = false;
        let step = loop {
            tokio::select! {
                biased;
                () = progress.written(self.newest_chunk), if !is_confirmed => {
                    self.feed.confirm_written();
                    is_confirmed = true;
                }
                step = self.feed.step() => break step,
                () = self.connection.client_has_ended(), if !self.is_probing => {
                    self.is_probing = true;
                    self.feed.ping_every(PROBE_INTERVAL);
                }
                // Before the next ping shows it, so that the place is free at once.
                () = self.connection.is_broken(), if self.is_probing => return None,
            }
        };
        self.ended = matches!(step, Step::End(_));
        match self.encode(&step) {
            Ok(chunk) => Some(chunk),
            Err(error) => {
                tracing::error!(%error, "cannot encode an event as JSON, closing its stream");
                None
            }
        }
    }

    fn encode(&self, step: &Step) -> serde_json::Result<Bytes> {
        let mut writer = SseWriter::default();
        match step {
            Step::Ping => writer.ping(),
            Step::Expiring(at) => writer.control(&Control::Expiring(Expiring::new(*at)))?,
            Step::End(bye) => writer.bye(*bye)?,
            Step::Items(items) => {
                for item in items {
                    writer.item(item, self.naming)?;
                }
            }
        }
        Ok(writer.into_string().into())
    }
}

/// The connection may end while the stream waits for its next event.
impl Drop for SseBody {
    fn drop(&mut self) {
        if self.connection.progress().is_written(self.newest_chunk) {
            self.feed.confirm_written();
        }
    }
}
