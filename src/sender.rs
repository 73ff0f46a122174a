//! One HTTP request: made, timed, bounded, and judged.

mod builder;
mod headers;
mod progress;
mod response_body;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use http::{Method, Request, header};
use jiff::Timestamp;
use tokio::time::timeout_at;
use tracing::field;

pub use builder::SenderBuilder;
pub(crate) use progress::Progress;

use crate::panics::catch;
use crate::telemetry::{self, Span};
use crate::transport::built_in::{BuiltIn, OnNewConnection};
use crate::transport::{RequestBody, ResponseBody, Transport};
use crate::{
    AddressPolicy, Attempt, AttemptError, Endpoint, ErrorKind, MAX_LOCATION_BYTES, Message,
    Response, parse_retry_after,
};

/// Makes single attempts. It never retries and follows no redirect.
///
/// It is cheap to clone, and clones share one pool of connections, one cache of names and one TLS
/// configuration: one sender can serve many clients.
///
/// ```no_run
/// # async fn example() -> Result<(), tidings::ConfigError> {
/// use tidings::{Endpoint, Message, Sender, Verdict};
///
/// let sender = Sender::builder().build()?;
/// let endpoint = Endpoint::new("https://example.com/hooks")?;
/// let attempt = sender.attempt(&endpoint, &Message::from("hello"), 1).await;
/// if attempt.verdict() == Verdict::Delivered {
///     println!("delivered in {:?}", attempt.elapsed);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Sender(Arc<Inner>);

struct Inner {
    route: Route,
    policy: AddressPolicy,
}

/// What sends the requests.
enum Route {
    BuiltIn(Box<BuiltIn>),
    Other(Arc<dyn Transport>),
}

impl Sender {
    /// Returns a builder for a sender.
    pub fn builder() -> SenderBuilder {
        SenderBuilder::new()
    }

    /// Which addresses requests may go to: what [`SenderBuilder::address_policy`] has set. A URL can be
    /// checked with it when it is registered.
    pub fn address_policy(&self) -> &AddressPolicy {
        &self.0.policy
    }

    fn new(route: Route, policy: AddressPolicy) -> Self {
        Self(Arc::new(Inner { route, policy }))
    }

    /// Posts a message to an endpoint, once. `number` counts the attempts of the delivery from 1.
    ///
    /// It is over by the endpoint's timeout at the latest, whatever the endpoint does. The status
    /// line decides: of the body that follows at most 16 KiB are read, for at most a second, and a
    /// body that breaks off changes nothing. The signature is made for this attempt, just before
    /// it.
    ///
    /// The host name is resolved for each new connection, from a cache; the address policy decides
    /// again each time. If no connection can be made, the next attempt resolves the name again.
    ///
    /// If a kept connection ends before the first byte of a response, the request is sent once more
    /// on a new connection, within the attempt: receivers close idle connections all the time.
    /// Otherwise a request that began to leave is never sent a second time: what breaks off is one
    /// failed attempt, marked as [ambiguous](Attempt::is_ambiguous).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the request, and its connection is not used again. The endpoint may
    /// or may not have received the message.
    pub async fn attempt(&self, endpoint: &Endpoint, message: &Message, number: u32) -> Attempt {
        let span = Span::new(|| span(endpoint, message, number));
        let started_at = Timestamp::now();
        let progress = Arc::new(Progress::new(endpoint.url().scheme() == "https"));
        // Pinned where it is made: as a part of another future it would be moved.
        let sending = pin!(self.send(endpoint, message, &progress));
        let result = span.around(sending).await;
        record_result(&span, &result);
        let attempt = Attempt {
            number,
            started_at,
            elapsed: progress.elapsed(),
            phases: progress.phases(),
            verdict: endpoint.classifier().classify(&result),
            result,
        };
        catch(|| telemetry::attempted(&attempt));
        attempt
    }

    async fn send(
        &self,
        endpoint: &Endpoint,
        message: &Message,
        progress: &Arc<Progress>,
    ) -> Result<Response, AttemptError> {
        // The resolver is not asked about addresses: this is the only check of them.
        self.0
            .policy
            .check_url(endpoint.url())
            .map_err(|blocked| AttemptError::new(ErrorKind::BlockedAddress, blocked))?;

        let deadline = progress.start() + endpoint.timeout();
        let first_byte = deadline.min(progress.start() + endpoint.first_byte_timeout());
        let exchange = pin!(self.exchange(endpoint, message, progress));
        let response = match timeout_at(first_byte, exchange).await {
            Ok(response) => response?,
            Err(elapsed) if progress.is_sent() => {
                let error = AttemptError::new(ErrorKind::ResponseTimeout, elapsed);
                return Err(error.ambiguous(true));
            }
            Err(elapsed) => {
                let kind = self.0.route.kind_of_unsent(progress);
                return Err(AttemptError::new(kind, elapsed));
            }
        };
        let responded_at = progress.responded();

        // Of several hints the longest: an endpoint is never called earlier than it asked for.
        let retry_after = response
            .headers()
            .get_all(header::RETRY_AFTER)
            .iter()
            .filter_map(|value| parse_retry_after(value, Timestamp::now()))
            .max();
        let location = response
            .headers()
            .get(header::LOCATION)
            .filter(|_| response.status().is_redirection())
            .map(|value| {
                let kept = value.len().min(MAX_LOCATION_BYTES);
                String::from_utf8_lossy(&value.as_bytes()[..kept]).into_owned()
            });
        let status = response.status();
        let body = response.into_body();
        Ok(Response {
            status,
            retry_after,
            location,
            body_head: response_body::read_head(body, responded_at, deadline).await,
        })
    }

    /// Sends the request, once more if it met a stale connection, and returns the head of the
    /// response.
    async fn exchange(
        &self,
        endpoint: &Endpoint,
        message: &Message,
        progress: &Arc<Progress>,
    ) -> Result<http::Response<ResponseBody>, AttemptError> {
        let first = request(endpoint, message, progress)?;
        let error = match self.0.route.send(first).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        if !error.met_stale_connection() {
            let is_ambiguous = is_ambiguous(&error, progress);
            return Err(error.ambiguous(is_ambiguous));
        }
        tracing::debug!("a kept connection ended; sending once more on a new one");
        let mut second = request(endpoint, message, progress)?;
        second.extensions_mut().insert(OnNewConnection);
        self.0.route.send(second).await.map_err(|second| {
            // Whatever happens to the second request, the first one may have been handled.
            let is_ambiguous = !error.was_refused() || is_ambiguous(&second, progress);
            second.ambiguous(is_ambiguous)
        })
    }
}

/// Whether the endpoint may have handled a request that failed.
fn is_ambiguous(error: &AttemptError, progress: &Progress) -> bool {
    progress.is_sent() && error.kind().may_follow_the_request() && !error.was_refused()
}

impl Route {
    async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<http::Response<ResponseBody>, AttemptError> {
        match self {
            Self::BuiltIn(transport) => transport.send(request).await,
            Self::Other(transport) => {
                if request.body().is_empty() {
                    // Nothing will be read of it.
                    request.body().progress().assume_sent();
                }
                transport.send(request).await
            }
        }
    }

    fn kind_of_unsent(&self, progress: &Progress) -> ErrorKind {
        match self {
            Self::BuiltIn(transport) => transport.kind_of_unsent(progress),
            Self::Other(_) => ErrorKind::ConnectTimeout,
        }
    }
}

/// The request of an attempt, signed now.
fn request(
    endpoint: &Endpoint,
    message: &Message,
    progress: &Arc<Progress>,
) -> Result<Request<RequestBody>, AttemptError> {
    let headers = headers::headers(endpoint, message, Timestamp::now())?;
    let body = RequestBody::new(message.body().clone(), Arc::clone(progress));
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = endpoint.uri().clone();
    *request.headers_mut() = headers;
    Ok(request)
}

fn span(endpoint: &Endpoint, message: &Message, number: u32) -> tracing::Span {
    let span = tracing::debug_span!(
        "attempt",
        { telemetry::HTTP_REQUEST_METHOD } = "POST",
        { telemetry::SERVER_ADDRESS } = endpoint.url().host_str(),
        { telemetry::SERVER_PORT } = endpoint.url().port_or_known_default(),
        { telemetry::MESSAGE_ID } = message.id(),
        { telemetry::ATTEMPT } = number,
        { telemetry::HTTP_REQUEST_RESEND_COUNT } = field::Empty,
        { telemetry::HTTP_RESPONSE_STATUS_CODE } = field::Empty,
        { telemetry::ERROR_TYPE } = field::Empty,
    );
    if number > 1 {
        span.record(telemetry::HTTP_REQUEST_RESEND_COUNT, number - 1);
    }
    span
}

fn record_result(span: &Span, result: &Result<Response, AttemptError>) {
    match result {
        Ok(response) => {
            let status = response.status.as_u16();
            span.record(telemetry::HTTP_RESPONSE_STATUS_CODE, status);
            if !response.status.is_success() {
                span.record(telemetry::ERROR_TYPE, response.status.as_str());
            }
        }
        Err(error) => {
            span.record(telemetry::ERROR_TYPE, error.kind().as_str());
        }
    }
}

/// Leaves out the transport, which may hold keys.
impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.0.route {
            Route::BuiltIn(_) => "built-in",
            Route::Other(_) => "handed in",
        };
        f.debug_struct("Sender")
            .field("transport", &transport)
            .field("policy", &self.0.policy)
            .finish_non_exhaustive()
    }
}
