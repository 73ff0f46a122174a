//! Refuses requests of callers that send too many, and says in each response how many are left: the
//! fields `RateLimit-Policy` and `RateLimit` of the
//! [draft](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/).

use std::num::NonZeroU32;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use tidings_notify::UserId;
use tidings_notify::wire::Bye;
use tidings_storage::counted;

use super::error::{ApiError, whole_seconds};
use super::sse;
use crate::access::Caller;
use crate::connections::Refused;
use crate::limits::rate::Exceeded;
use crate::limits::{Limits, Taken};
use crate::wire::code::Code;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// How long a client that has too many connections should wait: until some of them have ended.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);

/// What is counted in a second.
#[derive(Debug, Clone, Copy)]
struct Policy {
    name: &'static str,
    per_second: NonZeroU32,
}

impl Policy {
    /// Says how many are left, or that there may be some after a time.
    fn describe(self, left: Result<u32, Duration>, headers: &mut HeaderMap) {
        let Self { name, per_second } = self;
        let (left, after) = match left {
            Ok(left) => (left, 1),
            Err(wait) => (0, whole_seconds(wait)),
        };
        let policy = format!("\"{name}\";q={per_second};w=1");
        let left = format!("\"{name}\";r={left};t={after}");
        for (field, value) in [(POLICY, policy), (LEFT, left)] {
            // Letters, digits and a few signs.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.append(field, value);
            }
        }
    }
}

/// A request, counted in the rate of its caller.
#[derive(Debug)]
pub(super) struct Counted {
    per_second: NonZeroU32,
    /// How many more there may be in this second, or when there may be one.
    left: Result<u32, Duration>,
}

impl Counted {
    /// Counts a request. `None` if the rate of its caller is not limited.
    pub(super) fn new(limits: &Limits, caller: &Caller) -> Option<Self> {
        let (rate, key) = limits.of_requests(caller)?;
        Some(Self {
            per_second: rate.per_second(),
            left: rate.take(&key).map_err(|exceeded| exceeded.wait()),
        })
    }

    /// The response to the request if its caller has sent too many.
    pub(super) fn refusal(&self, request: &Request) -> Option<Response> {
        let wait = self.left.err()?;
        let error = ApiError::new(Code::TooManyRequests, self.rule());
        let reason = "the caller has sent too many requests";
        Some(refusal(request, error, reason, wait))
    }

    fn rule(&self) -> String {
        let requests = counted(self.per_second.get(), "request");
        format!("this caller may send {requests} a second")
    }

    /// Says in the response how many are left.
    pub(super) fn describe(&self, headers: &mut HeaderMap) {
        let policy = Policy {
            name: "requests",
            per_second: self.per_second,
        };
        policy.describe(self.left, headers);
    }
}

/// Counts what a stream asks for as a request of its caller.
pub(super) fn count_request(limits: &Limits, caller: &Caller) -> Result<(), ApiError> {
    let Some(counted) = Counted::new(limits, caller) else {
        return Ok(());
    };
    let Err(wait) = counted.left else {
        return Ok(());
    };
    let (rule, wait) = (counted.rule(), whole_seconds(wait));
    let message = format!("{rule}; try again in {wait} s");
    Err(ApiError::new(Code::TooManyRequests, message))
}

/// The response to a request of an address that has as many connections as allowed.
pub(super) fn refused_connection(request: &Request) -> Option<Response> {
    let refused = request.extensions().get::<Refused>()?;
    refused.report();
    let reason = "the address has as many connections as allowed";
    let error = ApiError::new(Code::TooManyConnections, reason);
    Some(refusal(request, error, reason, CONNECTION_WAIT))
}

/// The error; or a stream that ends at once, because an `EventSource` does not reconnect after any other
/// status than 200.
fn refusal(request: &Request, error: ApiError, reason: &'static str, wait: Duration) -> Response {
    if sse::is_event_source(request) {
        let spread = Duration::from_millis(fastrand::u64(0..5000));
        return sse::refusal(Bye::new(4100, reason, wait + spread)).into_response();
    }
    error.retry_after(whole_seconds(wait)).into_response()
}

/// Takes the notifications of a request from the rates of their users.
pub(super) fn take_notifications<'a>(
    limits: &Limits,
    users: impl Iterator<Item = &'a UserId>,
) -> Result<Taken, ApiError> {
    let (per_second, exceeded) = match limits.take_notifications(users) {
        Ok(taken) => return Ok(taken),
        Err(refused) => refused,
    };
    match exceeded {
        Exceeded::For(user, wait) => {
            let error = ApiError::new(
                Code::TooManyNotifications,
                format!(
                    "the user `{user}` may get {} a second",
                    counted(per_second.get(), "notification")
                ),
            );
            let policy = Policy {
                name: "notifications",
                per_second,
            };
            let mut headers = HeaderMap::new();
            policy.describe(Err(wait), &mut headers);
            Err(error.retry_after(whole_seconds(wait)).with_headers(headers))
        }
        Exceeded::Always(user) => {
            let expected = format!(
                "expected at most {} for `{user}`, as many as a user may get in a second",
                counted(per_second.get(), "notification")
            );
            Err(ApiError::invalid("notifications", expected))
        }
    }
}
