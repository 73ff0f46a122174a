//! `GET /v1/users/{user}/ws`: a user's stream as JSON text frames on a WebSocket.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use futures_util::SinkExt;
use serde_json::{Map, Value};
use tidings_notify::wire::{Bye, Control, Expiring, Hello, Request, WebSocketFrame};
use tidings_notify::{InboxAction, Item, Since, UserId};
use tracing::{Instrument, Span};

use super::cursor;
use super::error::ApiError;
use super::extract::{InPath, Parameters, Upgrade};
use super::feed::{Confirmation, Feed, Step};
use super::inbox;
use crate::access::Caller;
use crate::app::SharedApp;
use crate::wire::code::Code;

/// Largest frame that a client may send: an acknowledgement is under a hundred bytes.
const MAX_FRAME_BYTES: usize = 4096;

/// The library's default would allocate 128 KiB for every idle connection.
const READ_BUFFER_BYTES: usize = 1024;

/// Frames are collected up to this size before they are written.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;

/// After this many pings without a pong the client is gone.
const MAX_PINGS_WITHOUT_PONG: u32 = 3;

/// The subprotocol that is confirmed to clients that offer it. Browsers fail a connection if none of
/// the offered ones is.
const PROTOCOL: &str = "tidings.v1";

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

    /// The text of an item; `None` if the client gets no frame for it.
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
    let Upgrade { socket, connection } = upgrade;
    let admitted = match app.permits.take(&user) {
        Ok(permit) => {
            let subscription = app.notifier.subscribe(user.clone(), since).await?;
            Ok((permit, subscription, app.tracker.register(user.clone())?))
        }
        Err(full) => Err(full),
    };
    let validity = caller.validity();
    let upgrade = socket
        .protocols([PROTOCOL])
        .max_message_size(MAX_FRAME_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .on_failed_upgrade(|error| tracing::debug!(%error, "a WebSocket upgrade failed"));
    let (tasks, cutting_off) = (app.tasks.clone(), app.cutting_off.clone());
    let span = Span::current();
    Ok(upgrade.on_upgrade(move |mut socket| {
        let run = async move {
            let stopping = app.farewell.group();
            let session = async {
                match admitted {
                    Ok((permit, subscription, registration)) => {
                        let feed = Feed::new(
                            subscription,
                            permit,
                            registration,
                            confirmation,
                            app.config.ping_interval,
                            stopping.clone(),
                            validity,
                        );
                        let session = Session {
                            app,
                            user,
                            socket,
                            feed,
                            encoder,
                            pings_without_pong: 0,
                        };
                        session.run().await
                    }
                    Err(full) => say_bye(&mut socket, Bye::full(full.reason()), &encoder).await,
                }
            };
            let outcome = tokio::select! {
                outcome = session => outcome,
                () = connection.stalls_the_stop(&stopping) => Err(SocketError::Stalled),
            };
            if let Err(error) = outcome {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a WebSocket ended"
                );
            }
        };
        tasks.track_future(async move {
            cutting_off
                .run_until_cancelled_owned(run.instrument(span))
                .await;
        })
    }))
}

/// Why a socket ended other than by an agreed close.
#[derive(Debug, thiserror::Error)]
enum SocketError {
    #[error("the connection failed")]
    Transport(#[from] axum::Error),
    #[error("cannot encode a frame as JSON")]
    Encode(#[from] serde_json::Error),
    #[error("the client does not read while the server stops")]
    Stalled,
}

struct Session<E> {
    app: SharedApp,
    user: UserId,
    socket: WebSocket,
    feed: Feed,
    encoder: E,
    /// Pings since the last pong.
    pings_without_pong: u32,
}

impl<E: Encoder> Session<E> {
    async fn run(mut self) -> Result<(), SocketError> {
        self.greet().await?;
        loop {
            tokio::select! {
                step = self.feed.step() => match step {
                    Step::Items(items) => self.send_items(&items).await?,
                    Step::Ping if self.pings_without_pong == MAX_PINGS_WITHOUT_PONG => {
                        return say_bye(&mut self.socket, Bye::silent(), &self.encoder).await;
                    }
                    Step::Ping => {
                        self.pings_without_pong += 1;
                        self.socket.send(Message::Ping(Bytes::new())).await?;
                    }
                    Step::Expiring(at) => {
                        let expiring = Control::Expiring(Expiring::new(at));
                        send(&mut self.socket, self.encoder.control(expiring)?).await?;
                    }
                    Step::End(bye) => {
                        return say_bye(&mut self.socket, bye, &self.encoder).await;
                    }
                },
                message = self.socket.recv() => {
                    self.pings_without_pong = 0;
                    match message {
                        None => return Ok(()),
                        Some(Ok(Message::Close(_))) => {
                            // Reading on sends the server's half of the close.
                            finish_close(&mut self.socket).await;
                            return Ok(());
                        }
                        Some(Ok(Message::Text(text))) => self.handle(text.as_str()).await?,
                        Some(Ok(Message::Binary(_))) => self.handle("").await?,
                        // The library has queued a pong. Nothing more is read before it is written,
                        // so that a client that sends pings and reads nothing costs no memory.
                        Some(Ok(Message::Ping(_))) => self.socket.flush().await?,
                        Some(Ok(Message::Pong(_))) => {}
                        Some(Err(error)) => return refuse_frame(&mut self.socket, error).await,
                    }
                }
            }
        }
    }

    async fn greet(&mut self) -> Result<(), SocketError> {
        let start = self.feed.subscription().hello();
        let hello = Hello::new(&self.user, start, self.app.config.ping_interval);
        let hello = self.encoder.control(Control::Hello(hello))?;
        send(&mut self.socket, hello).await
    }

    /// Sends the items in as few writes as their size allows.
    async fn send_items(&mut self, items: &[Item]) -> Result<(), SocketError> {
        for item in items {
            if let Some(text) = self.encoder.item(&self.user, item)? {
                self.socket.feed(Message::Text(text.into())).await?;
            }
        }
        self.socket.flush().await?;
        self.feed.confirm_written();
        Ok(())
    }

    /// Carries out a request. If it fails, the client gets an error frame, and the stream continues.
    async fn handle(&mut self, request: &str) -> Result<(), SocketError> {
        if !E::HAS_REQUESTS {
            return Ok(());
        }
        let Err(error) = self.carry_out(request).await else {
            return Ok(());
        };
        let frame = WebSocketFrame::error(error.into_description());
        send(&mut self.socket, Some(frame.to_text()?)).await
    }

    async fn carry_out(&mut self, request: &str) -> Result<(), ApiError> {
        match serde_json::from_str(request) {
            Ok(Request::Ack(id)) if self.feed.has_given(id) => self.feed.acknowledge(id),
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

async fn send(socket: &mut WebSocket, text: Option<String>) -> Result<(), SocketError> {
    match text {
        Some(text) => Ok(socket.send(Message::Text(text.into())).await?),
        None => Ok(()),
    }
}

/// How long a client may take to agree to a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Ends the stream: a `bye`, then a close with the same code.
async fn say_bye(
    socket: &mut WebSocket,
    bye: Bye,
    encoder: &impl Encoder,
) -> Result<(), SocketError> {
    send(socket, encoder.control(Control::Bye(bye))?).await?;
    let close = CloseFrame {
        code: bye.code,
        reason: bye.reason.into(),
    };
    socket.send(Message::Close(Some(close))).await?;
    finish_close(socket).await;
    Ok(())
}

/// Waits a moment for the client's half of the close, so that the client can read everything before
/// the connection ends.
async fn finish_close(socket: &mut WebSocket) {
    let agreed = async { while let Some(Ok(_)) = socket.recv().await {} };
    let _timed_out = tokio::time::timeout(CLOSE_TIMEOUT, agreed).await;
}

/// Closes the connection of a client that violated the protocol or the size limit, and says which.
async fn refuse_frame(socket: &mut WebSocket, error: axum::Error) -> Result<(), SocketError> {
    let violation = error.into_inner();
    let (code, reason) = match violation.downcast_ref() {
        Some(tungstenite::Error::Capacity(_)) => (
            close_code::SIZE,
            "expected text frames of at most 4096 bytes",
        ),
        Some(tungstenite::Error::Utf8(_)) => (close_code::INVALID, "expected text in UTF-8"),
        Some(tungstenite::Error::Protocol(_)) => (
            close_code::PROTOCOL,
            "the frame violates the WebSocket protocol",
        ),
        // The connection is broken.
        _ => return Err(axum::Error::new(violation).into()),
    };
    let reason = reason.into();
    let close = Message::Close(Some(CloseFrame { code, reason }));
    Ok(socket.send(close).await?)
}
