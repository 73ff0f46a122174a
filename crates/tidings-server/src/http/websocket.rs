//! `GET /v1/users/{user}/ws`: a user's stream as JSON text frames on a WebSocket.

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tidings_notify::{Event, EventId, Item, Since, UserId};
use tokio::time::Instant;

use super::cursor;
use super::error::{ApiError, Description};
use super::extract::{Parameters, Upgrade, User};
use super::feed::{Feed, Step};
use super::frames::{Bye, CaughtUp, GapFrame, Hello, ReadFrame};
use super::seats::{Full, Seat};
use crate::app::SharedApp;

/// Largest frame that a client may send: an acknowledgement is under a hundred bytes.
const MAX_FRAME_BYTES: usize = 4096;

/// The library's default would set aside 128 KiB for every connection that only waits.
const READ_BUFFER_BYTES: usize = 1024;

/// A client that has answered none of this many pings is gone.
const UNANSWERED_PINGS: u32 = 3;

pub(crate) async fn connect(
    State(app): State<SharedApp>,
    User(user): User,
    parameters: Parameters,
    headers: HeaderMap,
    Upgrade(upgrade): Upgrade,
) -> Result<Response, ApiError> {
    let since = cursor::since(
        &headers,
        parameters.text("last_event_id"),
        parameters.text("since"),
        Since::Now,
    );
    open(app, user, since, upgrade, Dialect::Tidings).await
}

/// Which documents go over the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `{"event":…}` frames, and what clients may say.
    Tidings,
    /// Bare notifications in the shape of the unversioned routes.
    Unversioned,
}

/// Subscribes and answers the upgrade; the stream itself runs as a task of the server.
pub(crate) async fn open(
    app: SharedApp,
    user: UserId,
    since: Since,
    upgrade: WebSocketUpgrade,
    dialect: Dialect,
) -> Result<Response, ApiError> {
    let seat = app.seats.take(&user);
    let subscription = match &seat {
        Ok(_) => Some(app.notifier.subscribe(user.clone(), since).await?),
        Err(_) => None,
    };
    let upgrade = upgrade
        .max_message_size(MAX_FRAME_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .on_failed_upgrade(|error| tracing::debug!(%error, "a WebSocket upgrade failed"));
    let (tasks, cutting_off) = (app.tasks.clone(), app.cutting_off.clone());
    Ok(upgrade.on_upgrade(move |socket| {
        let run = async move {
            let outcome = match (seat, subscription) {
                (Ok(seat), Some(subscription)) => {
                    let feed = Feed::new(
                        subscription,
                        seat,
                        app.config.ping_interval,
                        app.stopping.clone(),
                    );
                    Connection::new(app, user, socket, feed, dialect)
                        .run()
                        .await
                }
                (seat, _) => refuse(socket, seat, dialect).await,
            };
            if let Err(error) = outcome {
                tracing::debug!(%error, "a WebSocket ended");
            }
        };
        tasks.track_future(async move {
            cutting_off.run_until_cancelled_owned(run).await;
        })
    }))
}

async fn refuse(
    mut socket: WebSocket,
    seat: Result<Seat, Full>,
    dialect: Dialect,
) -> Result<(), SocketError> {
    let reason = match seat {
        Err(Full::User) => "the user has as many streams as one user may",
        _ => "the server has as many streams as it may",
    };
    farewell(&mut socket, Bye::full(reason), dialect).await
}

/// Why a socket ended other than by an agreed close.
#[derive(Debug, thiserror::Error)]
enum SocketError {
    #[error("the connection failed")]
    Transport(#[from] axum::Error),
    #[error("a frame could not be written as JSON")]
    Encode(#[from] serde_json::Error),
    #[error("the client answers no pings")]
    Silent,
}

/// What a client may say.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Request {
    /// The client has everything up to this event.
    Ack(EventId),
    /// The user has read this event.
    Read(EventId),
}

/// A frame named by its event, with the document beside it or inside it.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Frame<'a> {
    Hello(Hello<'a>),
    Notification { data: &'a Event },
    Gap(GapFrame),
    CaughtUp(CaughtUp),
    Read(ReadFrame),
    Bye(Bye),
    Error(Description),
}

struct Connection {
    app: SharedApp,
    user: UserId,
    socket: WebSocket,
    feed: Feed,
    dialect: Dialect,
    last_heard: Instant,
}

impl Connection {
    fn new(app: SharedApp, user: UserId, socket: WebSocket, feed: Feed, dialect: Dialect) -> Self {
        Self {
            app,
            user,
            socket,
            feed,
            dialect,
            last_heard: Instant::now(),
        }
    }

    async fn run(mut self) -> Result<(), SocketError> {
        self.greet().await?;
        loop {
            tokio::select! {
                step = self.feed.step() => match step {
                    Step::Items(items) => self.send_items(&items).await?,
                    Step::Ping => self.ping().await?,
                    Step::Stop => {
                        return farewell(&mut self.socket, Bye::stopping(), self.dialect).await;
                    }
                },
                message = self.socket.recv() => {
                    self.last_heard = Instant::now();
                    match message {
                        None => return Ok(()),
                        Some(Ok(Message::Close(_))) => {
                            // Reading on sends our half of the close.
                            finish_close(&mut self.socket).await;
                            return Ok(());
                        }
                        Some(Ok(Message::Text(text))) => self.answer(text.as_str()).await?,
                        Some(Ok(Message::Binary(_))) => self.answer("").await?,
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                        Some(Err(error)) => {
                            refuse_frame(&mut self.socket).await;
                            return Err(error.into());
                        }
                    }
                }
            }
        }
    }

    async fn greet(&mut self) -> Result<(), SocketError> {
        if self.dialect == Dialect::Unversioned {
            return Ok(());
        }
        let start = self.feed.subscription().hello();
        let hello = Frame::Hello(Hello {
            user_id: &self.user,
            cursor: start.cursor,
            unread: start.unread,
            ping_interval: self.app.config.ping_interval,
        });
        send(&mut self.socket, &hello).await
    }

    async fn send_items(&mut self, items: &[Item]) -> Result<(), SocketError> {
        for item in items {
            match (self.dialect, item) {
                (Dialect::Tidings, Item::Event(event)) => {
                    let data = event.as_ref();
                    send(&mut self.socket, &Frame::Notification { data }).await?;
                }
                (Dialect::Tidings, Item::Gap(gap)) => {
                    send(&mut self.socket, &Frame::Gap(gap.into())).await?;
                }
                (Dialect::Tidings, Item::CaughtUp { cursor }) => {
                    let cursor = *cursor;
                    send(&mut self.socket, &Frame::CaughtUp(CaughtUp { cursor })).await?;
                }
                (Dialect::Tidings, Item::Read(change)) => {
                    send(&mut self.socket, &Frame::Read(change.into())).await?;
                }
                (Dialect::Unversioned, Item::Event(event)) => {
                    send(
                        &mut self.socket,
                        &super::unversioned::Notification::from(event.as_ref()),
                    )
                    .await?;
                }
                (Dialect::Unversioned, Item::Gap(gap)) => {
                    // The unversioned frames have no word for it.
                    tracing::warn!(user = %self.user, ?gap, "queued notifications expired unsent");
                }
                // The unversioned dialect has notifications only.
                (Dialect::Unversioned | Dialect::Tidings, _) => {}
            }
        }
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), SocketError> {
        if self.last_heard.elapsed() > self.app.config.ping_interval * UNANSWERED_PINGS {
            return Err(SocketError::Silent);
        }
        Ok(self.socket.send(Message::Ping(bytes::Bytes::new())).await?)
    }

    /// Does what the client asks; what cannot be done is answered, and the stream goes on.
    async fn answer(&mut self, text: &str) -> Result<(), SocketError> {
        if self.dialect == Dialect::Unversioned {
            return Ok(());
        }
        let refusal = match serde_json::from_str(text) {
            Ok(Request::Ack(id)) => {
                self.feed.subscription().sent(id);
                return Ok(());
            }
            Ok(Request::Read(id)) => {
                match super::inbox::mark_read(&self.app, &self.user, id).await {
                    Ok(_) => return Ok(()),
                    Err(error) => Frame::Error(error.into_description()),
                }
            }
            Err(_) => Frame::Error(
                ApiError::new(
                    StatusCode::BAD_REQUEST,
                    "invalid_frame",
                    r#"expected {"ack":"<id>"} or {"read":"<id>"}"#,
                )
                .into_description(),
            ),
        };
        send(&mut self.socket, &refusal).await
    }
}

async fn send(
    socket: &mut WebSocket,
    document: &(impl Serialize + Sync),
) -> Result<(), SocketError> {
    let text = serde_json::to_string(document)?;
    Ok(socket.send(Message::Text(text.into())).await?)
}

/// How long a client may take to agree to a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

async fn farewell(socket: &mut WebSocket, bye: Bye, dialect: Dialect) -> Result<(), SocketError> {
    if dialect == Dialect::Tidings {
        send(socket, &Frame::Bye(bye)).await?;
    }
    let close = CloseFrame {
        code: bye.code,
        reason: bye.reason.into(),
    };
    socket.send(Message::Close(Some(close))).await?;
    finish_close(socket).await;
    Ok(())
}

/// Waits for the client's half of the close, so that it can read everything before the connection
/// goes; one that does not answer is not waited for.
async fn finish_close(socket: &mut WebSocket) {
    let agreed = async { while let Some(Ok(_)) = socket.recv().await {} };
    let _timed_out = tokio::time::timeout(CLOSE_TIMEOUT, agreed).await;
}

/// Says why the connection ends, to a client that broke the rules of the protocol or the size.
async fn refuse_frame(socket: &mut WebSocket) {
    let close = CloseFrame {
        code: close_code::POLICY,
        reason: "expected text frames of at most 4096 bytes".into(),
    };
    // The connection may be broken already: then there is nobody to tell.
    let _broken = socket.send(Message::Close(Some(close))).await;
}
