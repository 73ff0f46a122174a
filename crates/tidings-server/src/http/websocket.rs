//! `GET /v1/users/{user}/ws`: a user's stream as JSON text frames on a WebSocket.

use std::any::TypeId;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Map, Value};
use tidings_notify::wire::{Bye, Control, Expiring, Hello, Request, WebSocketFrame};
use tidings_notify::{InboxAction, Item, Since, UserId};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as Violation, Message, Utf8Bytes};
use tracing::Instrument;

use super::cursor;
use super::error::ApiError;
use super::extract::{InPath, Parameters};
use super::feed::{Confirmation, Feed, Step};
use super::inbox;
use super::last_encoded::LastEncoded;
use super::request_id::RequestId;
use super::upgrade::{Socket, Upgrade};
use crate::access::Caller;
use crate::app::SharedApp;
use crate::connections::ClientConnection;
use crate::wire::code::Code;

/// How long a client may take to agree to a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// After this many pings without a pong the client is gone.
const MAX_PINGS_WITHOUT_PONG: u32 = 3;

thread_local! {
    /// An event by the type of its encoder.
    static LAST_TEXT: LastEncoded<TypeId, Option<Utf8Bytes>> = const { LastEncoded::new() };
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
    open(app, &caller, user, since, confirmation, upgrade?, Versioned).await
}

/// Which documents go over a socket.
pub(crate) trait Encoder: Send + Sync + 'static {
    /// Whether the client may send requests. Otherwise its frames are ignored.
    const HAS_REQUESTS: bool;

    /// The text of an item; `None` if the client gets no frame for it. That of an event is the same for all
    /// streams of its user.
    fn item(&self, user: &UserId, item: &Item) -> serde_json::Result<Option<String>>;

    /// The text of a control frame; `None` if the client gets no frame for it.
    fn control(&self, control: Control<'_>) -> serde_json::Result<Option<String>>;
}

/// `{"event":…}` frames.
#[derive(Debug, Clone, Copy)]
struct Versioned;

impl Encoder for Versioned {
    const HAS_REQUESTS: bool = true;

    fn item(&self, _user: &UserId, item: &Item) -> serde_json::Result<Option<String>> {
        WebSocketFrame::text_of(item)
    }

    fn control(&self, control: Control<'_>) -> serde_json::Result<Option<String>> {
        WebSocketFrame::from(control).to_text().map(Some)
    }
}

/// Subscribes and accepts the upgrade; the stream itself runs as a task of the server.
pub(crate) async fn open(
    app: SharedApp,
    caller: &Caller,
    user: UserId,
    since: Since,
    confirmation: Confirmation,
    upgrade: Upgrade,
    encoder: impl Encoder,
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
    let connection = upgrade.connection.clone();
    let request_id = upgrade.request_id.clone();
    let accepting = Arc::clone(&app);
    Ok(upgrade.accept(&accepting, move |socket| {
        let mut admitted = admitted;
        let mut session = Session {
            app,
            upgraded_by: request_id,
            user,
            socket,
            encoder,
            pings_without_pong: 0,
        };
        async move {
            // Borrowed: what is moved within a task takes its place there twice.
            let outcome = match &mut admitted {
                Ok(feed) => session.run(feed, &connection).await,
                Err(full) => Box::pin(session.say_bye(Bye::full(full.reason()))).await,
            };
            if let Err(error) = outcome {
                let error = &error as &dyn std::error::Error;
                let _span = session.upgraded_by.stream_span().entered();
                tracing::debug!(error, user = %session.user, "a WebSocket ended");
            }
        }
    }))
}

/// Why a socket ended other than by an agreed close.
#[derive(Debug, thiserror::Error)]
enum SocketError {
    #[error("the connection failed")]
    Transport(#[from] Violation),
    #[error("cannot encode a frame as JSON")]
    Encode(#[from] serde_json::Error),
    #[error("the client does not read while the server stops")]
    Stalled,
}

struct Session<E> {
    app: SharedApp,
    upgraded_by: RequestId,
    user: UserId,
    socket: Socket,
    encoder: E,
    /// Pings since the last pong.
    pings_without_pong: u32,
}

/// What a socket waits for.
enum Next {
    Step(Step),
    Message(Option<Result<Message, Violation>>),
}

impl<E: Encoder> Session<E> {
    /// Sends what there is and does what the client asks for, until the stream or the connection ends.
    async fn run(
        &mut self,
        feed: &mut Feed,
        connection: &ClientConnection,
    ) -> Result<(), SocketError> {
        let app = Arc::clone(&self.app);
        let hello = Hello::new(
            &self.user,
            feed.subscription().hello(),
            self.app.config.ping_interval,
        );
        let hello = self.encoder.control(Control::Hello(hello))?;
        Box::pin(self.send(hello)).await?;
        loop {
            let next = tokio::select! {
                step = feed.step() => Next::Step(step),
                message = self.socket.next() => Next::Message(message),
            };
            let taking = async {
                tokio::select! {
                    is_over = self.take(feed, next) => is_over,
                    () = connection.stalls_the_stop(&app.stopping) => Err(SocketError::Stalled),
                }
            };
            // Boxed, because a socket that waits should not have the size of all that it may do.
            if Box::pin(taking).await? {
                return Ok(());
            }
        }
    }

    /// Sends a step, or does what a message of the client asks for. Returns whether the socket is over.
    async fn take(&mut self, feed: &mut Feed, next: Next) -> Result<bool, SocketError> {
        match next {
            Next::Step(Step::Items(items)) => {
                self.send_items(&items).await?;
                feed.confirm_written();
            }
            Next::Step(Step::Ping) if self.pings_without_pong == MAX_PINGS_WITHOUT_PONG => {
                self.say_bye(Bye::silent()).await?;
                return Ok(true);
            }
            Next::Step(Step::Ping) => {
                self.pings_without_pong += 1;
                self.socket.send(Message::Ping(Bytes::new())).await?;
            }
            Next::Step(Step::Expiring(at)) => {
                let expiring = Control::Expiring(Expiring::new(at));
                let expiring = self.encoder.control(expiring)?;
                self.send(expiring).await?;
            }
            Next::Step(Step::End(bye)) => {
                self.say_bye(bye).await?;
                return Ok(true);
            }
            Next::Message(message) => {
                self.pings_without_pong = 0;
                match message {
                    None => return Ok(true),
                    Some(Ok(Message::Close(_))) => {
                        // Reading on sends the server's half of the close.
                        self.finish_close().await;
                        return Ok(true);
                    }
                    Some(Ok(Message::Text(text))) => self.handle(feed, text.as_str()).await?,
                    Some(Ok(Message::Binary(_))) => self.handle(feed, "").await?,
                    // The library has queued a pong. Nothing more is read before it is written,
                    // so that a client that sends pings and reads nothing costs no memory.
                    Some(Ok(Message::Ping(_))) => self.socket.flush().await?,
                    Some(Ok(Message::Pong(_) | Message::Frame(_))) => {}
                    Some(Err(violation)) => {
                        self.refuse_frame(violation).await?;
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Sends the items in as few writes as their size allows.
    async fn send_items(&mut self, items: &[Item]) -> Result<(), SocketError> {
        for item in items {
            if let Some(text) = self.text(item)? {
                self.socket.feed(Message::Text(text)).await?;
            }
        }
        Ok(self.socket.flush().await?)
    }

    fn text(&self, item: &Item) -> serde_json::Result<Option<Utf8Bytes>> {
        let encode = || Ok(self.encoder.item(&self.user, item)?.map(Utf8Bytes::from));
        match item {
            Item::Event(event) => {
                LAST_TEXT.with(|last| last.get_or_encode(event, TypeId::of::<E>(), encode))
            }
            _ => encode(),
        }
    }

    /// Carries out a request. If it fails, the client gets an error frame, and the stream continues.
    async fn handle(&mut self, feed: &mut Feed, request: &str) -> Result<(), SocketError> {
        if !E::HAS_REQUESTS {
            return Ok(());
        }
        let span = self.upgraded_by.stream_span();
        let Err(error) = self.carry_out(feed, request).instrument(span).await else {
            return Ok(());
        };
        let frame = WebSocketFrame::error(error.into_description());
        self.send(Some(frame.to_text()?)).await
    }

    async fn carry_out(&mut self, feed: &mut Feed, request: &str) -> Result<(), ApiError> {
        match serde_json::from_str(request) {
            Ok(Request::Ack(id)) if feed.has_given(id) => feed.acknowledge(id),
            Ok(Request::Ack(_)) => {
                let expected = "expected the id of a notification that this stream has sent, or of an earlier one";
                return Err(ApiError::new(Code::InvalidFrame, expected).about("ack"));
            }
            Ok(Request::Read(id)) => {
                inbox::change_one(&self.app, &self.user, id, InboxAction::Read).await?;
            }
            Ok(Request::Archive(id)) => {
                inbox::change_one(&self.app, &self.user, id, InboxAction::Archive).await?;
            }
            Ok(Request::Seen(id)) => {
                inbox::see_up_to(&self.app, &self.user, id).await?;
            }
            Ok(_) | Err(_) => return Err(unreadable(request)),
        }
        Ok(())
    }

    async fn send(&mut self, text: Option<String>) -> Result<(), SocketError> {
        match text {
            Some(text) => Ok(self.socket.send(Message::Text(text.into())).await?),
            None => Ok(()),
        }
    }

    /// Ends the stream: a `bye`, then a close with the same code.
    async fn say_bye(&mut self, bye: Bye) -> Result<(), SocketError> {
        let frame = self.encoder.control(Control::Bye(bye))?;
        self.send(frame).await?;
        let close = CloseFrame {
            code: bye.code.into(),
            reason: bye.reason.into(),
        };
        self.socket.send(Message::Close(Some(close))).await?;
        self.finish_close().await;
        Ok(())
    }

    /// Waits a moment for the client's half of the close, so that the client can read everything before
    /// the connection ends.
    async fn finish_close(&mut self) {
        let agreed = async { while let Some(Ok(_)) = self.socket.next().await {} };
        let _timed_out = tokio::time::timeout(CLOSE_TIMEOUT, agreed).await;
    }

    /// Closes the connection of a client that violated the protocol or the size limit, and says which.
    async fn refuse_frame(&mut self, violation: Violation) -> Result<(), SocketError> {
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
            other => return Err(other.into()),
        };
        let reason = reason.into();
        let close = Message::Close(Some(CloseFrame { code, reason }));
        Ok(self.socket.send(close).await?)
    }
}

/// What is wrong with a frame that is no request: its id, or everything.
fn unreadable(frame: &str) -> ApiError {
    let fields: Map<String, Value> = serde_json::from_str(frame).unwrap_or_default();
    let known = ["ack", "read", "seen", "archive"].map(|name| (name, fields.contains_key(name)));
    let message = match known.into_iter().find(|(_, is_there)| *is_there) {
        Some((name, _)) if fields.len() == 1 => {
            let expected = "expected the id of a notification";
            return ApiError::new(Code::InvalidFrame, expected).about(name);
        }
        _ => r#"expected {"ack":"<id>"}, {"read":"<id>"}, {"seen":"<id>"} or {"archive":"<id>"}"#,
    };
    ApiError::new(Code::InvalidFrame, message)
}
