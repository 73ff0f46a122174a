//! The body of a request: how large it may be, how long it may take, and how much memory all bodies together take.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::RequestExt;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError};
use tidings_storage::explain::find;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use crate::access::Caller;
use crate::app::App;
use crate::wire::code::Code;

/// How long a body may take to arrive, the wait for room included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a body may wait for room.
const ROOM_TIMEOUT: Duration = Duration::from_secs(10);

/// A body up to this size needs no room: its connection may buffer as much.
const SMALL_BYTES: usize = 16 << 10;

/// Most bytes of larger bodies that are in memory at the same time, of callers with API keys: twice the largest body
/// that may be allowed. What finds no room is not read before others have their response.
const KEYS_ROOM_BYTES: usize = 128 << 20;

/// The same of everyone else: as much as the largest body that may be allowed.
const OTHERS_ROOM_BYTES: usize = 64 << 20;

/// The room for the larger bodies of all requests.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    of_keys: Arc<Semaphore>,
    /// Apart from that of the keys: users, and senders to request bins, are strangers, who could use it up with bodies
    /// that do not end.
    of_others: Arc<Semaphore>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            of_keys: Arc::new(Semaphore::new(KEYS_ROOM_BYTES)),
            of_others: Arc::new(Semaphore::new(OTHERS_ROOM_BYTES)),
        }
    }
}

impl Room {
    /// The room of a caller, who is not known on the routes that are open to everyone.
    fn of(&self, caller: Option<&Caller>) -> &Arc<Semaphore> {
        match caller {
            Some(Caller::Operator | Caller::Key(_)) => &self.of_keys,
            Some(Caller::User(_)) | None => &self.of_others,
        }
    }
}

/// The part of the room that a request has taken. It is free when the last clone is dropped.
#[derive(Debug, Clone)]
#[must_use]
pub(super) struct Part {
    room: Room,
    max_bytes: usize,
    taken: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Part {
    /// Waits for so many bytes of the room of the caller.
    async fn take(&self, bytes: usize, caller: Option<&Caller>) -> Result<(), ApiError> {
        let count = u32::try_from(bytes).unwrap_or(u32::MAX);
        let permit = Arc::clone(self.room.of(caller)).acquire_many_owned(count);
        match tokio::time::timeout(ROOM_TIMEOUT, permit).await {
            Ok(Ok(permit)) => {
                let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
                *taken = Some(permit);
                Ok(())
            }
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(ApiError::busy()),
        }
    }

    /// Gives back what a body has not needed.
    fn shrink_to(&self, bytes: usize) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(permit) = &mut *taken {
            let surplus = permit.num_permits().saturating_sub(bytes);
            drop(permit.split(surplus));
        }
    }
}

/// Limits the body, and refuses a request that announces one beyond the limit before any of it is read: the
/// client need not send it. The room that the body takes is free when what is returned is dropped.
pub(super) fn limit(app: &App, request: &mut Request) -> Result<Part, ApiError> {
    let max_bytes = app.limits.now().settings.max_body_bytes;
    if announced(request.headers()).is_some_and(|length| length > max_bytes as u64) {
        return Err(too_large(max_bytes));
    }
    DefaultBodyLimit::max(max_bytes).apply(request);
    let part = Part {
        room: app.bodies.clone(),
        max_bytes,
        taken: Arc::default(),
    };
    request.extensions_mut().insert(part.clone());
    Ok(part)
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

fn too_large(max_bytes: usize) -> ApiError {
    ApiError::new(
        Code::BodyTooLarge,
        format!(
            "the body is larger than this server allows: expected at most {max_bytes} bytes (--max-body-bytes)"
        ),
    )
}

/// The body as it was sent, within the limits of size and time.
#[derive(Debug)]
pub(crate) struct Body(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        check_encoding(request.headers())?;
        let read = tokio::time::timeout(TIMEOUT, read(request)).await;
        read.map_err(|_| ApiError::new(Code::BodyTimeout, "the body did not arrive in time"))?
            .map(Self)
    }
}

/// Reads the body. Before more than a little of it is read, there is room for all of it: otherwise many bodies that
/// wait for each other could all be in the way.
async fn read(request: Request) -> Result<Bytes, ApiError> {
    let part = request.extensions().get::<Part>().cloned();
    let caller = request.extensions().get::<Caller>().cloned();
    let announced = announced(request.headers()).and_then(|length| usize::try_from(length).ok());
    let mut body = request.into_limited_body();
    let mut bytes = BytesMut::new();
    let mut has_room = false;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            // The limit was set with the part.
            match (find::<LengthLimitError>(&error), &part) {
                (Some(_), Some(part)) => too_large(part.max_bytes),
                _ => not_read(&error),
            }
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if !has_room
            && let Some(part) = &part
            && bytes.len() + data.len() > SMALL_BYTES
        {
            let most = announced.unwrap_or(part.max_bytes);
            part.take(most, caller.as_ref()).await?;
            bytes.reserve(most.saturating_sub(bytes.len()));
            has_room = true;
        }
        bytes.extend_from_slice(&data);
    }
    if let Some(part) = part {
        part.shrink_to(bytes.len());
    }
    Ok(bytes.freeze())
}

/// The chunks of a body that cannot be read are told from the end of its connection by the kind of the error.
fn not_read(error: &axum::Error) -> ApiError {
    let kind = find::<io::Error>(error).map(io::Error::kind);
    let code = match kind {
        Some(ErrorKind::InvalidInput | ErrorKind::InvalidData) => Code::InvalidChunks,
        _ => Code::IncompleteBody,
    };
    ApiError::new(code, code.meaning())
}

/// Compressed bodies are not supported, and would otherwise look like malformed JSON.
fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    Err(ApiError::new(
        Code::UnsupportedEncoding,
        "expected a body without Content-Encoding",
    ))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::Body as Sent;
    use futures_util::{FutureExt, StreamExt, stream};
    use tokio::time::Instant;

    use super::*;

    const MAX_BYTES: usize = 100 << 10;

    /// A request whose body begins with so many bytes, and the part of the room that it takes.
    fn request(room: &Room, length: Option<usize>, begin: usize, ends: bool) -> (Request, Part) {
        let pieces = vec![Ok::<_, Infallible>(Bytes::from(vec![b'x'; 1024])); begin / 1024];
        let begin = stream::iter(pieces);
        let body = if ends {
            Sent::from_stream(begin)
        } else {
            Sent::from_stream(begin.chain(stream::pending()))
        };
        let part = Part {
            room: room.clone(),
            max_bytes: MAX_BYTES,
            taken: Arc::default(),
        };
        let mut request = Request::new(body);
        if let Some(length) = length {
            let headers = request.headers_mut();
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        DefaultBodyLimit::max(MAX_BYTES).apply(&mut request);
        request.extensions_mut().insert(part.clone());
        (request, part)
    }

    fn body(request: Request) -> impl Future<Output = Result<usize, String>> {
        let body = Body::from_request(request, &());
        body.map(|body| match body {
            Ok(Body(bytes)) => Ok(bytes.len()),
            Err(error) => Err(format!("{:?}", error.into_description().code)),
        })
    }

    /// So much room for API keys, and for the others.
    fn room(bytes: usize) -> Room {
        Room {
            of_keys: Arc::new(Semaphore::new(bytes)),
            of_others: Arc::new(Semaphore::new(bytes)),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_is_refused_in_time() {
        let room = room(MAX_BYTES);
        for begin in [0, 1 << 10, 64 << 10] {
            let start = Instant::now();
            let (request, part) = request(&room, Some(80 << 10), begin, false);
            assert_eq!(body(request).await, Err("BodyTimeout".to_owned()));
            assert_eq!(start.elapsed(), TIMEOUT);
            drop(part);
            assert_eq!(room.of_others.available_permits(), MAX_BYTES);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_wait_for_room_and_small_ones_do_not() {
        let room = room(MAX_BYTES);
        let (slow, slow_part) = request(&room, Some(80 << 10), 20 << 10, false);
        let mut slow = Box::pin(body(slow));
        assert_eq!((&mut slow).now_or_never(), None);
        assert_eq!(room.of_others.available_permits(), 20 << 10);

        let (large, large_part) = request(&room, Some(64 << 10), 64 << 10, true);
        let mut large = Box::pin(body(large));
        assert_eq!((&mut large).now_or_never(), None);
        let (small, _part) = request(&room, None, SMALL_BYTES, true);
        assert_eq!(body(small).now_or_never(), Some(Ok(SMALL_BYTES)));

        let (waiting, _waiting_part) = request(&room, Some(96 << 10), 96 << 10, true);
        let start = Instant::now();
        assert_eq!(body(waiting).await, Err("Busy".to_owned()));
        assert_eq!(start.elapsed(), ROOM_TIMEOUT);

        drop((slow, slow_part));
        assert_eq!(large.now_or_never(), Some(Ok(64 << 10)));
        // Until there is a response.
        assert_eq!(room.of_others.available_permits(), 36 << 10);
        drop(large_part);
        assert_eq!(room.of_others.available_permits(), MAX_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_of_callers_without_a_key_leave_the_room_of_the_keys() {
        let room = room(MAX_BYTES);
        let mut parts = Vec::new();
        let mut from = |caller: Option<Caller>, ends| {
            let begin = if ends { 96 << 10 } else { 20 << 10 };
            let (mut request, part) = request(&room, Some(96 << 10), begin, ends);
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            parts.push(part);
            Box::pin(body(request))
        };
        let mut slow = from(None, false);
        assert_eq!((&mut slow).now_or_never(), None);
        assert_eq!(from(None, true).await, Err("Busy".to_owned()));
        let of_key = from(Some(Caller::Operator), true).now_or_never();
        assert_eq!(of_key, Some(Ok(96 << 10)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_without_a_length_gives_back_what_it_does_not_need() {
        let room = room(MAX_BYTES);
        let (chunked, chunked_part) = request(&room, None, 32 << 10, true);
        assert_eq!(body(chunked).now_or_never(), Some(Ok(32 << 10)));
        assert_eq!(room.of_others.available_permits(), MAX_BYTES - (32 << 10));
        let (beyond, part) = request(&room, None, MAX_BYTES + 1024, true);
        drop(chunked_part);
        assert_eq!(body(beyond).await, Err("BodyTooLarge".to_owned()));
        drop(part);
        assert_eq!(room.of_others.available_permits(), MAX_BYTES);
    }
}
