//! `GET /v1/users/{user}/ws`: a user's stream as JSON text frames on a WebSocket.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use serde::de::IgnoredAny;
use tidings_notify::wire::{Bye, Control, Expiring, Hello, Request, WebSocketFrame};
use tidings_notify::{InboxAction, Item, Since, UserId};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as Violation, Message};
use tokio_util::future::FutureExt;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument;

use super::cursor;
use super::entries::Entries;
use super::error::ApiError;
use super::event_loop::{Leave, Outcome, Waiting};
use super::extract::{GIVEN_TWICE, InPath, Parameters};
use super::feed::{Confirmation, Encoding, Feed, Step, poll_steps};
use super::inbox;
use super::last_encoded::LastEncoded;
use super::rate_limit::count_request;
use super::request_id::RequestId;
use super::socket::{READ_BUFFER_BYTES, Socket, is_pong, ping_frame, text_frame};
use super::unversioned;
use super::upgrade::Upgrade;
use crate::access::Caller;
use crate::app::SharedApp;
use crate::connections::{Counted, IdleSocket, Progress, Transport};
use crate::wire::code::Code;

/// How long a client may take to agree to a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// After this many pings without a pong the client is gone.
const MAX_PINGS_WITHOUT_PONG: u32 = 3;

/// Pongs that are read where a socket waits, before it is served elsewhere.
const MAX_PONGS_AT_ONCE: usize = 4;

thread_local! {
    /// An event in the form of a socket.
    static LAST_FRAME: LastEncoded<Form, Bytes> = const { LastEncoded::new() };
}

pub(crate) async fn connect(
    State(app): State<SharedApp>,
    Extension(caller): Extension<Caller>,
    InPath(user): InPath<UserId>,
    parameters: Parameters,
    upgrade: Result<Upgrade, ApiError>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let confirmation = match parameters.text("ack")? {
        None | Some("false") => Confirmation::Written,
        Some("true") => Confirmation::Acknowledged,
        Some(_) => return Err(ApiError::invalid("ack", "expected `true` or `false`")),
    };
    let since = cursor::since(&headers, &parameters)?;
    open(
        app,
        &caller,
        user,
        since,
        confirmation,
        upgrade?,
        Form::Versioned,
    )
    .await
}

/// Which documents go over a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `{"event":…}` frames.
    Versioned,
    /// Bare notifications, and nothing else.
    Unversioned,
}

impl Form {
    /// Whether the client may send requests. Otherwise its frames are ignored.
    fn has_requests(self) -> bool {
        self == Self::Versioned
    }

    /// The text of an item; `None` if the client gets no frame for it. That of an event is the same for all
    /// streams of its user.
    fn item(self, user: &UserId, item: &Item) -> serde_json::Result<Option<String>> {
        match self {
            Self::Versioned => WebSocketFrame::text_of(item),
            Self::Unversioned => unversioned::text_of(user, item),
        }
    }

    /// The text of a control frame; `None` if the client gets no frame for it.
    fn control(self, control: Control<'_>) -> serde_json::Result<Option<String>> {
        match self {
            Self::Versioned => WebSocketFrame::from(control).to_text().map(Some),
            Self::Unversioned => Ok(None),
        }
    }

    /// The text of the frame beside a ping; `None` if the client gets none.
    fn ping(self) -> serde_json::Result<Option<String>> {
        match self {
            Self::Versioned => WebSocketFrame::ping().to_text().map(Some),
            Self::Unversioned => Ok(None),
        }
    }
}

/// Subscribes and accepts the upgrade; then the stream waits in an event loop of the server.
pub(crate) async fn open(
    app: SharedApp,
    caller: &Caller,
    user: UserId,
    since: Since,
    confirmation: Confirmation,
    upgrade: Upgrade,
    form: Form,
) -> Result<Response, ApiError> {
    let admitted = match app.permits.take(&user) {
        Ok(permit) => {
            let turn = app.openings.turn().await;
            let subscription = app.notifier.subscribe(user.clone(), since).await?;
            drop(turn);
            let registration = app.tracker.register(user.clone())?;
            Ok(Feed::new(
                subscription,
                permit,
                registration,
                confirmation,
                app.config.ping_interval,
                app.farewell.group(),
                caller.validity(),
            ))
        }
        Err(full) => Err(full),
    };
    let counted = upgrade.counted.clone();
    let (upgraded_by, caller) = (upgrade.request_id.clone(), caller.clone());
    let accepting = Arc::clone(&app);
    Ok(upgrade.accept(&accepting, async move |mut socket| {
        let feed = match admitted {
            Ok(feed) => feed,
            Err(full) => {
                if let Err(error) = say_bye(&mut socket, form, Bye::full(full.reason())).await {
                    report(&upgraded_by, &user, &error);
                }
                return;
            }
        };
        let session = Session {
            token: app.tasks.token(),
            app,
            upgraded_by,
            caller,
            feed,
            counted,
            form,
            pings_without_pong: 0,
        };
        // Apart from the task of the upgrade, which is counted too.
        let cutting_off = session.app.cutting_off.clone();
        tokio::spawn(
            session
                .begin(socket)
                .with_cancellation_token_owned(cutting_off),
        );
    }))
}

/// Why a socket ended other than by an agreed close.
#[derive(Debug, thiserror::Error)]
enum SocketError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the connection failed")]
    Transport(#[from] Violation),
    #[error("cannot encode a frame as JSON")]
    Encode(#[from] serde_json::Error),
    #[error("the client does not read while the server stops")]
    Stalled,
    #[error("the client does not read after the end of its permission")]
    Over,
    #[error("the client violated the protocol")]
    Refused(#[source] Violation),
}

/// A user's stream over a WebSocket. It lasts, so what it holds while it waits is small.
struct Session {
    app: SharedApp,
    upgraded_by: RequestId,
    caller: Caller,
    feed: Feed,
    #[expect(dead_code, reason = "it counts while it is there")]
    counted: Counted,
    /// A stop waits for it.
    #[expect(dead_code, reason = "it counts while it is there")]
    token: TaskTrackerToken,
    form: Form,
    /// Pings since the client was last heard.
    pings_without_pong: u32,
}

/// A session that waits in an event loop.
struct IdleSession {
    session: Session,
    socket: IdleSocket,
}

/// What a socket waits for.
enum Next {
    Step(Step),
    Message(Option<Result<Message, Violation>>),
}

impl Encoding for Session {
    fn feed(&mut self) -> &mut Feed {
        &mut self.feed
    }

    fn encode(&mut self, step: &Step) -> Option<Bytes> {
        match step {
            Step::Items(items) => self.frames(items).ok(),
            Step::Ping if self.pings_without_pong < MAX_PINGS_WITHOUT_PONG => {
                let text = self.form.ping().ok()?.map(text_frame);
                self.pings_without_pong += 1;
                Some([ping_frame(), text.unwrap_or_default()].concat().into())
            }
            _ => None,
        }
    }
}

impl Waiting for IdleSession {
    fn socket(&self) -> &TcpStream {
        self.socket.socket()
    }

    fn poll(&mut self, context: &mut Context<'_>, has_received: bool) -> Poll<Leave> {
        let Self { session, socket } = self;
        if has_received && let Some(why) = session.receive(socket) {
            return Poll::Ready(why);
        }
        poll_steps(session, socket, context)
    }

    fn ping_at(&self) -> Instant {
        self.session.feed.ping_at()
    }

    fn leave(self: Box<Self>, why: Leave) {
        let Self { session, socket } = *self;
        if let Leave::Failed(error) = why {
            return session.report(&error.into());
        }
        let cutting_off = session.app.cutting_off.clone();
        match socket.activate() {
            Ok(transport) => {
                let task = session.go_on(transport, why);
                tokio::spawn(task.with_cancellation_token_owned(cutting_off));
            }
            Err(error) => session.report(&error.into()),
        }
    }
}

impl Session {
    /// Says hello, and waits for what follows.
    async fn begin(mut self, mut socket: Socket) {
        match self.say_hello(&mut socket).await {
            Ok(()) => self.serve(socket, None).await,
            Err(error) => self.report(&error),
        }
    }

    async fn say_hello(&mut self, socket: &mut Socket) -> Result<(), SocketError> {
        let Some(start) = self.feed.take_hello() else {
            return Ok(());
        };
        let hello = Hello::new(self.user(), start, self.app.config.ping_interval);
        let hello = self.form.control(Control::Hello(hello))?;
        let progress = socket.progress();
        self.unless_stalled(&progress, send(socket, hello)).await
    }

    /// Waits in an event loop.
    fn wait(self, socket: io::Result<IdleSocket>) {
        match socket {
            Ok(socket) => {
                let app = Arc::clone(&self.app);
                let session = self;
                app.event_loops
                    .enter(Box::new(IdleSession { session, socket }));
            }
            Err(error) => self.report(&error.into()),
        }
    }

    /// Goes on outside of the event loop.
    async fn go_on(mut self, transport: Transport, why: Leave) {
        match why {
            Leave::Unsent(frames) => {
                let write = async { Ok(transport.write_all(&frames).await?) };
                match self.unless_stalled(transport.progress(), write).await {
                    Ok(()) => {
                        self.feed.confirm_written();
                        self.wait(IdleSocket::new(transport));
                    }
                    Err(error) => self.report(&error),
                }
            }
            Leave::Received(bytes) => {
                let socket = Socket::new(transport, &bytes).await;
                self.serve(socket, None).await;
            }
            Leave::Step(step) => {
                let socket = Socket::new(transport, &[]).await;
                self.serve(socket, Some(step)).await;
            }
            Leave::Reads => {
                let socket = Socket::new(transport, &[]).await;
                self.serve(socket, None).await;
            }
            Leave::Failed(error) => self.report(&error.into()),
        }
    }

    /// Serves a client that sends something, and waits in an event loop again when it sends nothing more.
    async fn serve(mut self, mut socket: Socket, first: Option<Step>) {
        match self.run(&mut socket, first).await {
            Ok(Outcome::Waits) => self.wait(socket.rest()),
            Ok(Outcome::Ended) => {}
            Err(error) => {
                self.report(&error);
                if let SocketError::Refused(_) = error {
                    // The connection may last a moment longer than the stream.
                    drop(self.feed);
                    let finish = socket.finish();
                    let _broken = self.app.stopping.run_until_cancelled(finish).await;
                }
            }
        }
    }

    async fn run(
        &mut self,
        socket: &mut Socket,
        mut first: Option<Step>,
    ) -> Result<Outcome, SocketError> {
        let (progress, app) = (socket.progress(), Arc::clone(&self.app));
        // Whether the client has sent something since the last step.
        let mut is_active = false;
        loop {
            let next = if let Some(step) = first.take() {
                Next::Step(step)
            } else {
                tokio::select! {
                    step = self.feed.step() => Next::Step(step),
                    message = socket.next() => Next::Message(message),
                }
            };
            let was_active = is_active;
            match &next {
                Next::Step(_) => is_active = false,
                // An answer to a ping.
                Next::Message(Some(Ok(Message::Pong(_)))) if self.pings_without_pong > 0 => {}
                Next::Message(_) => is_active = true,
            }
            let outlasted = self.feed.outlasted();
            let is_over = tokio::select! {
                is_over = self.take(socket, next) => is_over?,
                () = outlasted => return Err(SocketError::Over),
                () = progress.stalls_the_stop(&app.stopping) => return Err(SocketError::Stalled),
            };
            if is_over {
                return Ok(Outcome::Ended);
            }
            let waits = self.feed.subscription().is_caught_up() && socket.is_settled();
            if waits && !was_active && !is_active {
                return Ok(Outcome::Waits);
            }
        }
    }

    /// The result, unless the client does not read while the server stops, or after the end of its permission.
    async fn unless_stalled(
        &self,
        progress: &Progress,
        write: impl Future<Output = Result<(), SocketError>>,
    ) -> Result<(), SocketError> {
        tokio::select! {
            written = write => written,
            () = self.feed.outlasted() => Err(SocketError::Over),
            () = progress.stalls_the_stop(&self.app.stopping) => Err(SocketError::Stalled),
        }
    }

    fn user(&self) -> &UserId {
        self.feed.subscription().user()
    }

    fn report(&self, error: &SocketError) {
        report(&self.upgraded_by, self.user(), error);
    }

    /// Reads pongs. Anything else is read elsewhere: then it returns what it has of it.
    fn receive(&mut self, socket: &IdleSocket) -> Option<Leave> {
        let mut buffer = [0; READ_BUFFER_BYTES];
        // What comes after it is not reported once more.
        for is_last in (1..=MAX_PONGS_AT_ONCE).map(|count| count == MAX_PONGS_AT_ONCE) {
            let read = match socket.read_at_once(&mut buffer) {
                Poll::Pending => return None,
                Poll::Ready(Ok(count)) => &buffer[..count],
                Poll::Ready(Err(error)) => return Some(Leave::Failed(error)),
            };
            if is_last || !is_pong(read) {
                return Some(Leave::Received(Bytes::copy_from_slice(read)));
            }
            self.pings_without_pong = 0;
        }
        None
    }

    /// The frames of the items, one after the other.
    fn frames(&self, items: &[Item]) -> serde_json::Result<Bytes> {
        let encode = |item| {
            let text = self.form.item(self.user(), item)?;
            Ok::<_, serde_json::Error>(text.map(text_frame).unwrap_or_default())
        };
        if let [item @ Item::Event(event)] = items {
            return LAST_FRAME.with(|last| last.get_or_encode(event, self.form, || encode(item)));
        }
        let frames: Result<Vec<_>, _> = items.iter().map(encode).collect();
        Ok(frames?.concat().into())
    }

    /// Sends a step, or does what a message of the client asks for. Returns whether the socket is over.
    async fn take(&mut self, socket: &mut Socket, next: Next) -> Result<bool, SocketError> {
        match next {
            Next::Step(Step::Items(items)) => {
                if self.send_items(socket, &items).await? {
                    self.feed.put_off_ping();
                }
                self.feed.confirm_written();
            }
            Next::Step(Step::Ping) if self.pings_without_pong == MAX_PINGS_WITHOUT_PONG => {
                self.say_bye(socket, Bye::silent()).await?;
                return Ok(true);
            }
            Next::Step(Step::Ping) => {
                self.pings_without_pong += 1;
                socket.feed(Message::Ping(Bytes::new())).await?;
                if let Some(text) = self.form.ping()? {
                    socket.feed(Message::Text(text.into())).await?;
                }
                socket.flush().await?;
            }
            Next::Step(Step::Expiring(at)) => {
                let expiring = Control::Expiring(Expiring::new(at));
                let expiring = self.form.control(expiring)?;
                send(socket, expiring).await?;
            }
            Next::Step(Step::End(bye)) => {
                self.say_bye(socket, bye).await?;
                return Ok(true);
            }
            Next::Message(message) => {
                self.pings_without_pong = 0;
                match message {
                    None => return Ok(true),
                    Some(Ok(Message::Close(_))) => {
                        // Reading on sends the server's half of the close.
                        finish_close(socket).await;
                        return Ok(true);
                    }
                    Some(Ok(Message::Text(text))) => self.handle(socket, text.as_str()).await?,
                    Some(Ok(Message::Binary(_))) => self.handle(socket, "").await?,
                    // The library has queued a pong. Nothing more is read before it is written,
                    // so that a client that sends pings and reads nothing costs no memory.
                    Some(Ok(Message::Ping(_))) => socket.flush().await?,
                    Some(Ok(Message::Pong(_) | Message::Frame(_))) => {}
                    Some(Err(violation)) => return Err(refuse_frame(socket, violation).await),
                }
            }
        }
        Ok(false)
    }

    /// Sends the items in as few writes as their size allows. Returns whether there was anything to send.
    async fn send_items(&self, socket: &mut Socket, items: &[Item]) -> Result<bool, SocketError> {
        let mut has_sent = false;
        for item in items {
            if let Some(text) = self.form.item(self.user(), item)? {
                socket.feed(Message::Text(text.into())).await?;
                has_sent = true;
            }
        }
        socket.flush().await?;
        Ok(has_sent)
    }

    /// Carries out a request. If it fails, the client gets an error frame, and the stream continues.
    async fn handle(&mut self, socket: &mut Socket, request: &str) -> Result<(), SocketError> {
        // Nothing is done after the end of a permission, which the next step tells.
        if !self.form.has_requests() || self.feed.is_over() {
            return Ok(());
        }
        let span = self.upgraded_by.stream_span();
        let Err(error) = self.carry_out(request).instrument(span).await else {
            return Ok(());
        };
        let mut error = error.into_description();
        if error.code.status().is_server_error() {
            error.request_id = Some(self.upgraded_by.to_string());
        }
        let frame = WebSocketFrame::error(error);
        send(socket, Some(frame.to_text()?)).await
    }

    async fn carry_out(&mut self, request: &str) -> Result<(), ApiError> {
        let (app, user) = (&self.app, self.user());
        match serde_json::from_str(request) {
            Ok(Request::Ack(id)) if self.feed.has_given(id) => {
                self.feed.acknowledge(id);
                Ok(())
            }
            Ok(Request::Ack(_)) => {
                let expected = "expected the id of a notification that this stream has sent, or of an earlier one";
                Err(ApiError::new(Code::InvalidFrame, expected).about("ack"))
            }
            Ok(Request::Read(id)) => {
                let read = inbox::change_one(app, user, id, InboxAction::Read);
                self.change(read).await
            }
            Ok(Request::Archive(id)) => {
                let archive = inbox::change_one(app, user, id, InboxAction::Archive);
                self.change(archive).await
            }
            Ok(Request::Seen(id)) => self.change(inbox::see_up_to(app, user, id)).await,
            Ok(_) | Err(_) => {
                // It gets an error frame, which costs as much as another response.
                count_request(&app.limits, &self.caller)?;
                Err(unreadable(request))
            }
        }
    }

    /// Changes the inbox. This counts as a request, and a failure of the database as one of a request.
    async fn change<T>(
        &self,
        change: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<(), ApiError> {
        count_request(&self.app.limits, &self.caller)?;
        let changed = change.await.map(drop);
        if let Some(cause) = changed.as_ref().err().and_then(ApiError::cause) {
            self.app.outage.failed(cause);
        }
        changed
    }

    /// Ends the stream.
    async fn say_bye(&self, socket: &mut Socket, bye: Bye) -> Result<(), SocketError> {
        say_bye(socket, self.form, bye).await
    }
}

async fn send(socket: &mut Socket, text: Option<String>) -> Result<(), SocketError> {
    match text {
        Some(text) => Ok(socket.send(Message::Text(text.into())).await?),
        None => Ok(()),
    }
}

/// Sends a `bye`, then a close with the same code.
async fn say_bye(socket: &mut Socket, form: Form, bye: Bye) -> Result<(), SocketError> {
    send(socket, form.control(Control::Bye(bye))?).await?;
    let close = CloseFrame {
        code: bye.code.into(),
        reason: bye.reason.into(),
    };
    socket.send(Message::Close(Some(close))).await?;
    finish_close(socket).await;
    Ok(())
}

/// Waits a moment for the client's half of the close, so that the client can read everything before
/// the connection ends.
async fn finish_close(socket: &mut Socket) {
    let agreed = async { while let Some(Ok(_)) = socket.next().await {} };
    let _timed_out = tokio::time::timeout(CLOSE_TIMEOUT, agreed).await;
}

/// Sends a close to a client that violated the protocol or the size limit, and says which. Returns how the socket
/// ended.
async fn refuse_frame(socket: &mut Socket, violation: Violation) -> SocketError {
    let (code, reason) = match violation {
        Violation::Capacity(_) => (
            CloseCode::Size,
            "expected text frames of at most 4096 bytes",
        ),
        Violation::Utf8(_) => (CloseCode::Invalid, "expected text in UTF-8"),
        Violation::Protocol(_) => (
            CloseCode::Protocol,
            "the frame violates the WebSocket protocol",
        ),
        // The connection is broken.
        other => return other.into(),
    };
    let reason = reason.into();
    let close = Message::Close(Some(CloseFrame { code, reason }));
    match socket.send(close).await {
        Ok(()) => SocketError::Refused(violation),
        Err(error) => error.into(),
    }
}

fn report(upgraded_by: &RequestId, user: &UserId, error: &SocketError) {
    let error = error as &dyn std::error::Error;
    let _span = upgraded_by.stream_span().entered();
    tracing::debug!(error, %user, "a WebSocket ended");
}

/// What is wrong with a frame that is no request: its id, a field beside it, or everything.
fn unreadable(frame: &str) -> ApiError {
    const EXPECTED: &str =
        r#"expected {"ack":"<id>"}, {"read":"<id>"}, {"seen":"<id>"} or {"archive":"<id>"}"#;
    let fields = serde_json::from_str::<Entries<IgnoredAny>>(frame);
    let fields = fields.map_or_else(|_| Vec::new(), |Entries(fields)| fields);
    let is_request = |name: &str| ["ack", "read", "seen", "archive"].contains(&name);
    let (requests, others): (Vec<_>, Vec<_>) = fields
        .iter()
        .map(|(name, _)| name.as_str())
        .partition(|name| is_request(name));
    let (message, field) = match (&*requests, &*others) {
        ([request], []) => ("expected the id of a notification", *request),
        ([first, rest @ ..], []) if rest.contains(first) => (GIVEN_TWICE, *first),
        ([_, ..], [other, ..]) => ("unknown field; expected one field", *other),
        _ => return ApiError::new(Code::InvalidFrame, EXPECTED),
    };
    ApiError::new(Code::InvalidFrame, message).about(field)
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
    use serde_json::{Value, json};
    use tidings_test_support::Log;
    use tokio_tungstenite::connect_async;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    use super::*;
    use crate::http::running::{KEY, Running};

    #[tokio::test]
    async fn a_request_that_the_database_refuses_is_in_the_log_and_the_error_says_where() {
        let log = Log::default();
        let _listening = log.listen();
        let running = Running::start().await;
        let request = running.client.post(running.url("/v1/notifications"));
        let body = json!({ "user_id": "anna", "payload": 1 });
        let stored = request.bearer_auth(KEY).json(&body).send().await;
        let stored: Value = stored.unwrap().json().await.unwrap();
        let url = running.url("/v1/users/anna/ws").replacen("http", "ws", 1);
        let mut request = url.into_client_request().unwrap();
        let bearer = format!("Bearer {KEY}").parse().unwrap();
        request.headers_mut().insert("authorization", bearer);
        let id = "stream-1".parse().unwrap();
        request.headers_mut().insert("x-request-id", id);
        let (mut socket, _) = connect_async(request).await.unwrap();
        running.remove_database();
        let read = json!({ "read": stored["id"] }).to_string();
        socket.send(Message::text(read)).await.unwrap();
        let error = loop {
            let message = socket.next().await.unwrap().unwrap();
            let frame: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
            if frame["event"] == "error" {
                break frame;
            }
        };
        assert_eq!(error["request_id"], "stream-1", "{error}");
        let lines = log.lines("the database does not work");
        assert!(
            lines.len() == 1 && lines[0].contains("stream-1"),
            "{lines:?}"
        );
    }

    #[cfg(target_pointer_width = "64")]
    #[test]
    fn a_socket_that_waits_is_small() {
        // The size of an allocation.
        assert!(size_of::<IdleSession>() <= 320);
    }
}
