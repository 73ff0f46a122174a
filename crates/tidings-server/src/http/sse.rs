//! `GET /v1/users/{user}/events`: a user's stream as Server-Sent Events.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, Version, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tidings_notify::wire::{Bye, Control, EventNaming, Expiring, Hello, SseWriter};
use tidings_notify::{Item, UserId};

use super::cursor;
use super::error::ApiError;
use super::extract::{InPath, Parameters};
use super::feed::{Confirmation, Feed, Step};
use super::last_encoded::LastEncoded;
use super::request_id::RequestId;
use crate::access::Caller;
use crate::app::SharedApp;
use crate::connections::{ClientConnection, StreamSocket};

/// Time between pings when the client has closed its sending half: if it has closed the whole
/// connection, writing is what shows it.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

thread_local! {
    /// An event by its naming, and by whether it is a chunk.
    static LAST_PART: LastEncoded<(EventNaming, bool), Bytes> = const { LastEncoded::new() };
}

pub(crate) async fn events(
    State(app): State<SharedApp>,
    version: Version,
    (Extension(connection), Extension(id)): (Extension<ClientConnection>, Extension<RequestId>),
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
    let turn = app.openings.turn().await;
    let subscription = app.notifier.subscribe(user.clone(), since).await?;
    drop(turn);
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
    let of_stream = connection.clone();
    let rest = move |socket| {
        let mut stream = EventStream {
            feed,
            naming,
            socket,
            connection: of_stream,
            app,
        };
        async move {
            let Err(error) = stream.run().await else {
                return;
            };
            let _span = id.stream_span().entered();
            let user = stream.feed.subscription().user();
            let cause = &error as &dyn std::error::Error;
            if let StreamError::Encode(_) = error {
                tracing::error!(error = cause, %user, "closed a stream");
            } else {
                tracing::debug!(error = cause, %user, "a stream ended");
            }
        }
    };
    let body = connection.leave_with(version, opening.into_string().into(), rest);
    let mut response = response(Body::new(body));
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    Ok(response)
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

/// Why a stream ended other than by a `bye`.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("the connection failed")]
    Transport(#[from] io::Error),
    #[error("cannot encode an event as JSON")]
    Encode(#[from] serde_json::Error),
    #[error("the client does not read while the server stops")]
    Stalled,
}

/// A stream that has sent its hello. It lasts, so what it holds while it waits is small.
struct EventStream {
    feed: Feed,
    naming: EventNaming,
    socket: StreamSocket,
    connection: ClientConnection,
    app: SharedApp,
}

impl EventStream {
    /// Sends what there is, until the stream or the connection ends.
    async fn run(&mut self) -> Result<(), StreamError> {
        // What few streams come to, or for a short time only, is boxed: all others wait without it.
        let mut broken: Option<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = None;
        loop {
            let step = tokio::select! {
                biased;
                step = self.feed.step() => step,
                () = poll_fn(|context| match &mut broken {
                    None => self.socket.poll_client_has_ended(context),
                    Some(broken) => broken.as_mut().poll(context),
                }) => {
                    if broken.is_some() {
                        return Ok(());
                    }
                    // Found before the next ping shows it, so that the place is free at once.
                    broken = Some(Box::pin(self.socket.is_broken()));
                    self.feed.ping_every(PROBE_INTERVAL);
                    continue;
                }
            };
            let is_last = matches!(step, Step::End(_));
            self.write(step).await?;
            self.feed.confirm_written();
            if is_last {
                let finish = self
                    .app
                    .cutting_off
                    .run_until_cancelled(self.socket.finish());
                return Ok(Box::pin(finish).await.unwrap_or(Ok(()))?);
            }
        }
    }

    async fn write(&self, step: Step) -> Result<(), StreamError> {
        let part = self.part(&step)?;
        drop(step);
        let written = self.socket.write_at_once(&part).await?;
        if written < part.len() {
            Box::pin(self.write_rest(&part[written..])).await?;
        }
        Ok(())
    }

    /// A step as it goes over the connection.
    fn part(&self, step: &Step) -> serde_json::Result<Bytes> {
        let encode = || {
            let text = encode(step, self.naming)?;
            Ok(self.socket.framed(text).into())
        };
        if let Step::Items(items) = step
            && let [Item::Event(event)] = &items[..]
        {
            let form = (self.naming, self.socket.is_chunked());
            LAST_PART.with(|last| last.get_or_encode(event, form, encode))
        } else {
            encode()
        }
    }

    /// Writes what the operating system has not taken at once.
    async fn write_rest(&self, rest: &[u8]) -> Result<(), StreamError> {
        tokio::select! {
            written = self.socket.write(rest) => Ok(written?),
            () = self.connection.stalls_the_stop(&self.app.stopping) => Err(StreamError::Stalled),
            () = self.app.cutting_off.cancelled() => Err(StreamError::Stalled),
        }
    }
}

fn encode(step: &Step, naming: EventNaming) -> serde_json::Result<String> {
    let mut writer = SseWriter::default();
    match step {
        Step::Ping => writer.ping(),
        Step::Expiring(at) => writer.control(&Control::Expiring(Expiring::new(*at)))?,
        Step::End(bye) => writer.bye(*bye)?,
        Step::Items(items) => {
            for item in items {
                writer.item(item, naming)?;
            }
        }
    }
    Ok(writer.into_string())
}
