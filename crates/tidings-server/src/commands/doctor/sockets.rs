//! The streams of a running server: whether something on the way holds them back.

use std::io::Cursor;
use std::time::Duration;

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use tidings_notify::wire::{BYE, HELLO, SSE_PREFIX};
use tidings_storage::finding::Finding;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;

use super::server;
use crate::commands::CommandError;
use crate::commands::remote::{Refusal, Remote, lost};
use crate::commands::sse::SseReader;

const STREAM: &str = "sse";
const WEBSOCKET: &str = "websocket";

/// Whose stream is opened. Nothing is sent to them.
const USER: &str = "tidings-doctor";

/// Longest wait for the beginning of a stream, which the server sends at once.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// How much later than the server promises a ping may come.
const TOLERANCE: Duration = Duration::from_secs(3);

/// Maximum size of the first frame, which is a hello.
const MAX_HELLO_BYTES: u64 = 4096;

/// Opens an event stream, and measures when its hello and its first ping come.
pub(super) async fn check_stream(remote: &Remote) -> Finding {
    follow(remote)
        .await
        .unwrap_or_else(|problem| problem.into_finding(STREAM))
}

/// Opens a WebSocket, and waits for its first frame.
pub(super) async fn check_websocket(remote: &Remote) -> Finding {
    upgrade(remote)
        .await
        .unwrap_or_else(|problem| problem.into_finding(WEBSOCKET))
}

/// Why a stream is not as it should be.
enum Problem {
    /// The caller may not open it: nothing is known of the way to it.
    NotAllowed(String),
    /// The server opens none just now, for this reason.
    NotNow(String),
    Other(String),
}

impl Problem {
    fn into_finding(self, check: &'static str) -> Finding {
        match self {
            Self::NotAllowed(message) => Finding::warning(
                check,
                format!(
                    "not checked: {message}; give a key with the scope read as TIDINGS_API_KEY"
                ),
            ),
            Self::NotNow(reason) => Finding::warning(
                check,
                format!("not checked: the server ends streams: {reason}"),
            ),
            Self::Other(message) => Finding::error(check, message),
        }
    }

    /// The server has ended the stream with this frame.
    fn ended(bye: &[u8]) -> Self {
        let reason = match serde_json::from_slice(bye) {
            Ok(Bye { reason }) => reason,
            Err(_of_another_version) => String::from_utf8_lossy(bye).into_owned(),
        };
        Self::NotNow(reason)
    }
}

/// The part of a farewell that says why.
#[derive(Deserialize)]
struct Bye {
    reason: String,
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let status = error.downcast_ref().map(Refusal::status);
        match status {
            Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                Self::NotAllowed(error.to_string())
            }
            _ => Self::Other(error.to_string()),
        }
    }
}

/// The part of a hello that says when to expect a ping.
#[derive(Deserialize)]
struct Hello {
    ping_interval_ms: u64,
}

async fn follow(remote: &Remote) -> Result<Finding, Problem> {
    let url = remote.address(&["v1", "users", USER, "events"])?;
    let request = remote.client()?.get(url);
    let request = request
        .header(ACCEPT, "text/event-stream")
        // As browsers do: a proxy that compresses the stream holds it back.
        .header(ACCEPT_ENCODING, "gzip");
    let started = Instant::now();
    let held_back = || Problem::Other(format!("no hello within {HELLO_LIMIT:?}: {BUFFERS}"));
    let mut response = timeout(HELLO_LIMIT, remote.send(request))
        .await
        .map_err(|_| held_back())??;
    if let Some(coding) = response.headers().get(CONTENT_ENCODING) {
        let coding = coding.to_str().unwrap_or("a coding").to_owned();
        let message =
            format!("a proxy compresses the stream ({coding}), which can hold events back");
        return Ok(Finding::warning(STREAM, message));
    }
    let mut reader = SseReader::default();
    let hello = timeout(HELLO_LIMIT, hello(&mut response, &mut reader))
        .await
        .map_err(|_| held_back())??;
    let hello_after = started.elapsed();
    let interval = Duration::from_millis(hello.ping_interval_ms);
    let ping = timeout(interval + TOLERANCE, ping(&mut response)).await;
    let ping_after = started.elapsed();
    match ping {
        Ok(Ok(())) => Ok(Finding::ok(
            STREAM,
            format!("not held back: hello after {hello_after:.0?}, a ping after {ping_after:.1?}"),
        )),
        Ok(Err(problem)) => Err(Problem::Other(match server::is_there(remote).await {
            Ok(()) => format!(
                "hello after {hello_after:.0?}, but after {ping_after:.1?} {problem}: unless the server was started \
                 again, the idle time of a proxy must be longer than the ping interval of {interval:?}"
            ),
            Err(gone) => format!(
                "hello after {hello_after:.0?}, but after {ping_after:.1?} {problem}, and the server is gone: {gone}"
            ),
        })),
        Err(_) => Err(Problem::Other(format!(
            "hello after {hello_after:.0?}, but no ping within {ping_after:.1?}: {BUFFERS}"
        ))),
    }
}

const BUFFERS: &str =
    "something on the way buffers the stream; docs/proxies.md says how proxies pass it on";

/// Reads up to the hello.
async fn hello(response: &mut Response, reader: &mut SseReader) -> Result<Hello, Problem> {
    while let Some(bytes) = response.chunk().await.map_err(|error| lost(&error))? {
        let mut bytes = &*bytes;
        while let Some(event) = reader.next(&mut bytes).map_err(CommandError::from)? {
            match event.name.strip_prefix(SSE_PREFIX) {
                Some(HELLO) => {
                    let hello = serde_json::from_str(&event.data);
                    return hello.map_err(|_| Problem::Other(NO_HELLO.to_owned()));
                }
                Some(BYE) => return Err(Problem::ended(event.data.as_bytes())),
                _ => {}
            }
        }
    }
    Err(Problem::Other(NO_HELLO.to_owned()))
}

const NO_HELLO: &str =
    "the stream does not begin with a hello: this does not look like a Tidings server";

/// Reads up to a comment, which is a ping.
async fn ping(response: &mut Response) -> Result<(), CommandError> {
    let mut at_start = true;
    while let Some(bytes) = response.chunk().await.map_err(|error| lost(&error))? {
        for byte in &bytes {
            if at_start && *byte == b':' {
                return Ok(());
            }
            at_start = *byte == b'\n';
        }
    }
    Err("the stream was ended".into())
}

async fn upgrade(remote: &Remote) -> Result<Finding, Problem> {
    let url = remote.address(&["v1", "users", USER, "ws"])?;
    let client = remote.builder()?.http1_only().build();
    let key = generate_key();
    let request = client
        .map_err(CommandError::from)?
        .get(url)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key);
    let started = Instant::now();
    let opened = async {
        let response = remote.send(request).await?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Problem::Other(format!(
                "the reply is {status} instead of an upgrade: a proxy must pass on the headers Upgrade and Connection"
            )));
        }
        let expected = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
        if response.headers().get(SEC_WEBSOCKET_ACCEPT) != expected.ok().as_ref() {
            return Err(Problem::Other(
                "the reply to the upgrade belongs to another request".to_owned(),
            ));
        }
        let upgraded = response.upgrade().await.map_err(|error| lost(&error))?;
        Ok(first_frame(upgraded).await?)
    };
    let frame = timeout(HELLO_LIMIT, opened).await.map_err(|_| {
        Problem::Other(format!(
            "no hello within {HELLO_LIMIT:?}: something on the way holds it back"
        ))
    })??;
    if serde_json::from_slice::<Hello>(&frame).is_err() {
        if serde_json::from_slice::<Bye>(&frame).is_ok() {
            return Err(Problem::ended(&frame));
        }
        return Err(Problem::Other(
            "the first frame is not a hello: this does not look like a Tidings server".to_owned(),
        ));
    }
    let after = started.elapsed();
    Ok(Finding::ok(
        WEBSOCKET,
        format!("opened, hello after {after:.0?}"),
    ))
}

/// Reads the payload of the first frame.
async fn first_frame(mut socket: impl AsyncRead + Unpin) -> Result<Vec<u8>, CommandError> {
    let mut bytes = Vec::new();
    loop {
        let mut cursor = Cursor::new(&bytes);
        if let Some((_, length)) = FrameHeader::parse(&mut cursor)? {
            if length > MAX_HELLO_BYTES {
                return Err("the first frame is too long for a hello".into());
            }
            let start = usize::try_from(cursor.position())?;
            let end = start + usize::try_from(length)?;
            if let Some(payload) = bytes.get(start..end) {
                return Ok(payload.to_vec());
            }
        }
        if socket.read_buf(&mut bytes).await? == 0 {
            return Err("the connection was closed before the first frame".into());
        }
    }
}
