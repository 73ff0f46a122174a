//! How much memory the responses take that their clients have not read yet.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tidings_notify::UserId;

use super::error::ApiError;
use crate::access::Caller;

/// A response up to this size needs no room: there are at most as many as connections.
const SMALL_BYTES: usize = 16 << 10;

/// Most bytes of larger responses to API keys: several times the largest response, which has one payload of the largest
/// body that may be allowed.
const KEYS_BYTES: usize = 256 << 20;

/// The same of all users together.
const USERS_BYTES: usize = 256 << 20;

/// The same of one user: a few pages of large notifications. A single response may be larger.
const USER_BYTES: usize = 16 << 20;

/// The room for the larger responses. What a client does not read stays in it.
#[derive(Debug, Clone, Default)]
pub(super) struct ResponseRoom(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    keys: usize,
    all_users: usize,
    of_each: HashMap<UserId, usize>,
}

impl ResponseRoom {
    /// The response, which takes room until it is written or its connection is lost. If there is no room, an error instead
    /// of a response that `only_reads`; any other one says what was done, and is not held back.
    pub(super) fn admit(&self, caller: &Caller, only_reads: bool, response: Response) -> Response {
        let size = response.body().size_hint().exact().unwrap_or(0);
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size <= SMALL_BYTES {
            return response;
        }
        let user = match caller {
            Caller::Operator | Caller::Key(_) => None,
            Caller::User(token) => Some(token.user.clone()),
        };
        let mut taken = self.taken();
        if only_reads && !taken.has_room(size, user.as_ref()) {
            return ApiError::too_many_unread().into_response();
        }
        taken.add(size, user.as_ref());
        let part = Arc::new(Part {
            room: self.clone(),
            size,
            user,
        });
        response.map(|body| Body::new(HeldBody { body, part }))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing in here panics half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn has_room(&self, size: usize, user: Option<&UserId>) -> bool {
        let Some(user) = user else {
            return self.keys.saturating_add(size) <= KEYS_BYTES;
        };
        let of_user = self.of_each.get(user);
        self.all_users.saturating_add(size) <= USERS_BYTES
            && of_user.is_none_or(|taken| taken.saturating_add(size) <= USER_BYTES)
    }

    fn add(&mut self, size: usize, user: Option<&UserId>) {
        let Some(user) = user else {
            self.keys += size;
            return;
        };
        self.all_users += size;
        *self.of_each.entry(user.clone()).or_default() += size;
    }

    fn remove(&mut self, size: usize, user: Option<&UserId>) {
        let Some(user) = user else {
            self.keys -= size;
            return;
        };
        self.all_users -= size;
        if let Entry::Occupied(mut of_user) = self.of_each.entry(user.clone()) {
            *of_user.get_mut() -= size;
            if *of_user.get() == 0 {
                of_user.remove();
            }
        }
    }
}

/// The part of the room that a response has. It is free when this is dropped.
#[derive(Debug)]
struct Part {
    room: ResponseRoom,
    size: usize,
    user: Option<UserId>,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.room.taken().remove(self.size, self.user.as_ref());
    }
}

/// A body with its part of the room. The HTTP library drops the body when it has its last bytes, so these have the part,
/// too.
#[derive(Debug)]
struct HeldBody {
    body: Body,
    part: Arc<Part>,
}

#[derive(Debug)]
struct HeldBytes {
    bytes: Bytes,
    _part: Arc<Part>,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let hold = |bytes| {
            Bytes::from_owner(HeldBytes {
                bytes,
                _part: Arc::clone(&self.part),
            })
        };
        frame.map_ok(|frame| frame.map_data(hold))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use http_body_util::BodyExt;
    use jiff::Timestamp;

    use super::*;
    use crate::access::Token;

    fn user(name: &str) -> Caller {
        Caller::User(Token {
            user: UserId::new(name).unwrap(),
            expires_at: Timestamp::MAX,
            has_endpoints: false,
        })
    }

    fn response(size: usize) -> Response {
        Bytes::from(vec![b'x'; size]).into_response()
    }

    impl ResponseRoom {
        fn read(&self, caller: &Caller, size: usize) -> Result<Response, StatusCode> {
            let response = self.admit(caller, true, response(size));
            match response.status() {
                StatusCode::OK => Ok(response),
                refused => Err(refused),
            }
        }

        fn is_free(&self) -> bool {
            let taken = self.taken();
            taken.keys == 0 && taken.all_users == 0 && taken.of_each.is_empty()
        }
    }

    const REFUSED: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

    #[test]
    fn a_user_whose_responses_are_not_read_gets_no_more_large_ones() {
        let room = ResponseRoom::default();
        let anna = user("anna");
        let first = room.read(&anna, USER_BYTES - 1).unwrap();
        assert_eq!(room.read(&anna, SMALL_BYTES + 1).unwrap_err(), REFUSED);
        room.read(&anna, SMALL_BYTES).unwrap();
        room.read(&user("ben"), USER_BYTES).unwrap();
        room.read(&Caller::Operator, USER_BYTES).unwrap();
        drop(first);
        // A single one may be larger than the share of a user.
        room.read(&anna, USER_BYTES * 2).unwrap();
        assert!(room.is_free());
    }

    #[test]
    fn users_leave_the_room_of_the_keys() {
        let room = ResponseRoom::default();
        let users = (0..USERS_BYTES / USER_BYTES).map(|n| user(&format!("user {n}")));
        let held: Vec<_> = users
            .map(|user| room.read(&user, USER_BYTES).unwrap())
            .collect();
        assert_eq!(room.read(&user("anna"), USER_BYTES).unwrap_err(), REFUSED);
        let of_key = room.read(&Caller::Operator, KEYS_BYTES).unwrap();
        assert_eq!(
            room.read(&Caller::Operator, USER_BYTES).unwrap_err(),
            REFUSED
        );
        drop((held, of_key));
        assert!(room.is_free());
    }

    #[test]
    fn the_response_to_a_change_is_not_held_back_and_takes_room() {
        let room = ResponseRoom::default();
        let of_key = room.read(&Caller::Operator, KEYS_BYTES).unwrap();
        let change = room.admit(&Caller::Operator, false, response(USER_BYTES));
        assert_eq!(change.status(), StatusCode::OK);
        drop(of_key);
        assert_eq!(
            room.read(&Caller::Operator, KEYS_BYTES).unwrap_err(),
            REFUSED
        );
    }

    #[tokio::test]
    async fn what_is_taken_from_a_body_keeps_its_room() {
        let room = ResponseRoom::default();
        let anna = user("anna");
        let mut body = room.read(&anna, USER_BYTES).unwrap().into_body();
        assert_eq!(body.size_hint().exact(), Some(USER_BYTES as u64));
        let bytes = body.frame().await.unwrap().unwrap().into_data().unwrap();
        drop(body);
        let rest = bytes.slice(USER_BYTES - 10..);
        drop(bytes);
        assert_eq!(room.read(&anna, USER_BYTES).unwrap_err(), REFUSED);
        assert_eq!(&*rest, &[b'x'; 10]);
        drop(rest);
        assert!(room.is_free());
    }
}
