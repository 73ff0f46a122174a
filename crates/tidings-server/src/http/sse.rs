//! `GET /v1/users/{user}/events`: a user's stream as Server-Sent Events.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Version, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tidings_notify::wire::{Bye, Control, EventNaming, Expiring, Hello, SseWriter};
use tidings_notify::{Item, UserId};
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::cursor;
use super::error::ApiError;
use super::event_loop::{Leave, Outcome, Waiting};
use super::extract::{InPath, Parameters};
use super::feed::{Confirmation, Encoding, Feed, Step, poll_steps};
use super::last_encoded::LastEncoded;
use super::request_id::RequestId;
use crate::access::Caller;
use crate::app::SharedApp;
use crate::connections::{
    ClientConnection, Counted, Framing, IdleSocket, Progress, StreamSocket, Transport,
};
use crate::header_list::elements;
use crate::wire::ErrorDescription;
use crate::wire::code::Code;

/// Time between pings when the client has closed its sending half: if it has closed the whole
/// connection, writing is what shows it.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

thread_local! {
    /// An event by its naming and framing.
    static LAST_PART: LastEncoded<(EventNaming, Framing), Bytes> = const { LastEncoded::new() };
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
    let mut subscription = app.notifier.subscribe(user.clone(), since).await?;
    drop(turn);
    let mut opening = SseWriter::default();
    if let Some(start) = subscription.take_hello() {
        opening.hello(Hello::new(&user, start, app.config.ping_interval))?;
    }
    let feed = Feed::new(
        subscription,
        permit,
        app.tracker.register(user.clone())?,
        Confirmation::Written,
        app.config.ping_interval,
        app.farewell.group(),
        caller.validity(),
    );
    let counted = connection.clone().into_counted();
    let rest = move |socket| {
        let stream = EventStream {
            feed,
            naming,
            counted,
            token: app.tasks.token(),
            app,
            id,
        };
        // Before it waits, it has to catch up.
        tokio::spawn(stream.go_on(socket, Leave::Reads));
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

/// The same in place of an error of the server, with the other headers of its response.
pub(super) fn refusal_of(error: &ErrorDescription, response: Response) -> Response {
    let bye = match error.code {
        Code::Stopping => Bye::stopping(),
        // The waits are spread so that the clients do not all reconnect at once.
        code => {
            let wait = Duration::from_millis(fastrand::u64(1000..5000));
            Bye::new(4101, code.meaning(), wait)
        }
    };
    let Ok(refusal) = refusal(bye) else {
        return response;
    };
    let (mut head, _) = response.into_parts();
    let (own, body) = refusal.into_parts();
    head.status = own.status;
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(header::RETRY_AFTER);
    head.headers.extend(own.headers);
    Response::from_parts(head, body)
}

/// An `EventSource` asks a route of event streams for one; some implementations list other types beside it.
pub(super) fn is_event_source(request: &Request) -> bool {
    let path = request.uri().path();
    if !(path.starts_with("/v1/users/") && path.ends_with("/events")) {
        return false;
    }
    let lists = |wanted: &str| {
        elements(request.headers(), header::ACCEPT, b',')
            .filter_map(|entry| entry.split(|byte| *byte == b';').next())
            .any(|name| name.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
    };
    request.method() == Method::GET && lists("text/event-stream") && !lists("application/json")
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
    #[error("the client does not read after the end of its permission")]
    Over,
}

/// A stream that has sent its hello. It lasts, so what it holds while it waits is small.
struct EventStream {
    feed: Feed,
    naming: EventNaming,
    #[expect(dead_code, reason = "it counts while it is there")]
    counted: Counted,
    /// A stop waits for it.
    #[expect(dead_code, reason = "it counts while it is there")]
    token: TaskTrackerToken,
    app: SharedApp,
    id: RequestId,
}

/// A stream that waits in an event loop.
struct IdleStream {
    stream: EventStream,
    socket: StreamSocket<IdleSocket>,
}

/// What a stream sends, as it goes over its connection.
struct Sending<'a> {
    stream: &'a mut EventStream,
    framing: Framing,
}

impl Encoding for Sending<'_> {
    fn feed(&mut self) -> &mut Feed {
        &mut self.stream.feed
    }

    fn encode(&mut self, step: &Step) -> Option<Bytes> {
        // The end is waited for.
        if matches!(step, Step::End(_)) {
            return None;
        }
        self.stream.part(step, self.framing).ok()
    }
}

impl Waiting for IdleStream {
    fn socket(&self) -> &TcpStream {
        self.socket.idle().socket()
    }

    fn poll(&mut self, context: &mut Context<'_>, has_received: bool) -> Poll<Leave> {
        let Self { stream, socket } = self;
        if has_received && socket.idle().client_has_ended() {
            return Poll::Ready(Leave::Received(Bytes::new()));
        }
        let mut sending = Sending {
            stream,
            framing: socket.framing(),
        };
        poll_steps(&mut sending, socket.idle(), context)
    }

    fn ping_at(&self) -> Instant {
        self.stream.feed.ping_at()
    }

    fn leave(self: Box<Self>, why: Leave) {
        let Self { stream, socket } = *self;
        if let Leave::Failed(error) = why {
            return stream.report(&error.into());
        }
        match socket.activate() {
            Ok(socket) => drop(tokio::spawn(stream.go_on(socket, why))),
            Err(error) => stream.report(&error.into()),
        }
    }
}

impl EventStream {
    /// Waits in an event loop.
    fn wait(self, socket: io::Result<StreamSocket<IdleSocket>>) {
        match socket {
            Ok(socket) => {
                let app = Arc::clone(&self.app);
                let stream = self;
                app.event_loops
                    .enter(Box::new(IdleStream { stream, socket }));
            }
            Err(error) => self.report(&error.into()),
        }
    }

    /// Goes on outside of the event loop, until it waits for something to send.
    async fn go_on(mut self, socket: StreamSocket<Transport>, why: Leave) {
        let mut outcome = match why {
            Leave::Step(step) => self.send(&socket, step).await,
            Leave::Unsent(rest) => self.write_rest(&socket, &rest).await,
            Leave::Received(_) => self.probe(&socket).await,
            Leave::Reads => Ok(Outcome::Waits),
            Leave::Failed(error) => Err(error.into()),
        };
        while let Ok(Outcome::Waits) = outcome
            && !self.feed.subscription().is_caught_up()
        {
            let step = self.feed.step().await;
            outcome = self.send(&socket, step).await;
        }
        match outcome {
            Ok(Outcome::Waits) => self.wait(socket.rest()),
            Ok(Outcome::Ended) => {}
            Err(error) => self.report(&error),
        }
    }

    /// Writes the rest of what was sent.
    async fn write_rest(
        &mut self,
        socket: &StreamSocket<Transport>,
        rest: &[u8],
    ) -> Result<Outcome, StreamError> {
        self.write(socket, rest).await?;
        self.feed.confirm_written();
        Ok(Outcome::Waits)
    }

    /// Goes on for a client that has ended its half of the connection, and may still read.
    async fn probe(&mut self, socket: &StreamSocket<Transport>) -> Result<Outcome, StreamError> {
        self.feed.ping_every(PROBE_INTERVAL);
        loop {
            let step = tokio::select! {
                biased;
                step = self.feed.step() => step,
                // Found before the next ping shows it, so that the place is free at once.
                () = socket.is_broken() => return Ok(Outcome::Ended),
            };
            if self.send(socket, step).await? == Outcome::Ended {
                return Ok(Outcome::Ended);
            }
        }
    }

    async fn send(
        &mut self,
        socket: &StreamSocket<Transport>,
        step: Step,
    ) -> Result<Outcome, StreamError> {
        let part = self.part(&step, socket.framing())?;
        let is_last = matches!(step, Step::End(_));
        drop(step);
        self.write(socket, &part).await?;
        self.feed.put_off_ping();
        self.feed.confirm_written();
        if !is_last {
            return Ok(Outcome::Waits);
        }
        self.unless_stalled(socket.progress(), socket.finish())
            .await?;
        Ok(Outcome::Ended)
    }

    /// Waits until the operating system has taken the bytes.
    async fn write(
        &self,
        socket: &StreamSocket<Transport>,
        bytes: &[u8],
    ) -> Result<(), StreamError> {
        self.unless_stalled(socket.progress(), socket.write(bytes))
            .await
    }

    /// The result, unless the client does not read while the server stops, or after the end of its permission.
    async fn unless_stalled(
        &self,
        progress: &Progress,
        write: impl Future<Output = io::Result<()>>,
    ) -> Result<(), StreamError> {
        tokio::select! {
            written = write => Ok(written?),
            () = self.feed.outlasted() => Err(StreamError::Over),
            () = progress.stalls_the_stop(&self.app.stopping) => Err(StreamError::Stalled),
            () = self.app.cutting_off.cancelled() => Err(StreamError::Stalled),
        }
    }

    /// A step as it goes over the connection.
    fn part(&self, step: &Step, framing: Framing) -> serde_json::Result<Bytes> {
        let encode = || {
            let text = encode(step, self.naming)?;
            Ok(framing.frame(text).into())
        };
        if let Step::Items(items) = step
            && let [Item::Event(event)] = &items[..]
        {
            LAST_PART.with(|last| last.get_or_encode(event, (self.naming, framing), encode))
        } else {
            encode()
        }
    }

    fn report(&self, error: &StreamError) {
        let _span = self.id.stream_span().entered();
        let user = self.feed.subscription().user();
        let cause = error as &dyn std::error::Error;
        if let StreamError::Encode(_) = error {
            tracing::error!(error = cause, %user, "closed a stream");
        } else {
            tracing::debug!(error = cause, %user, "a stream ended");
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

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn accepts(method: Method, values: &[&str]) -> bool {
        accepts_at("/v1/users/anna/events", method, values)
    }

    fn accepts_at(path: &str, method: Method, values: &[&str]) -> bool {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        for value in values {
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().append(header::ACCEPT, value);
        }
        is_event_source(&request)
    }

    #[test]
    fn whatever_lists_an_event_stream_and_no_json_is_an_event_source() {
        for values in [
            &["text/event-stream"][..],
            &["text/event-stream, */*"],
            &["text/html;q=0.5,Text/Event-Stream ; q=0.9"],
            &["*/*", "text/event-stream"],
            &["text/event-stream", "*/*"],
        ] {
            assert!(accepts(Method::GET, values), "{values:?}");
            assert!(!accepts(Method::POST, values), "{values:?}");
            for path in ["/health/ready", "/v1/users/anna/notifications", "/events"] {
                assert!(!accepts_at(path, Method::GET, values), "{path} {values:?}");
            }
        }
        for values in [
            &[][..],
            &["*/*"],
            &["text/*"],
            &["text/event-stream2, a/b"],
            &["application/json, text/event-stream"],
            &["text/event-stream", "Application/JSON;q=0.1"],
        ] {
            assert!(!accepts(Method::GET, values), "{values:?}");
        }
    }

    #[cfg(target_pointer_width = "64")]
    #[test]
    fn a_stream_that_waits_is_small() {
        // The size of an allocation.
        assert!(size_of::<IdleStream>() <= 320);
    }
}
