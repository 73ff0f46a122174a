//! One HTTP request: made, timed, bounded, and judged.

mod attempt;
mod body;
mod builder;
mod connector;
mod failure;
mod metered;
mod phases;
mod tls;
mod transport;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body;
use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, Span, field};

pub use attempt::{Answer, Attempt, AttemptError};
pub use builder::SenderBuilder;
pub use phases::Phases;
pub(crate) use phases::Progress;

use crate::classify::parse_retry_after;
use crate::resolver::GuardedResolver;
use crate::{AddressPolicy, Endpoint, ErrorKind, Message, telemetry};
use body::TrackedBody;
use transport::Transport;

/// Most bytes of an answer's body that are kept for the report.
pub const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// Most bytes of a redirect's `location` that are kept for the report.
pub const MAX_LOCATION_BYTES: usize = 2048;

/// Longest time that is spent on an answer's body once its status is known.
const BODY_TIME: Duration = Duration::from_secs(1);

/// Makes single attempts. It never retries, follows no redirect, and goes through no proxy.
///
/// Clones share one pool of connections.
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
#[derive(Debug, Clone)]
pub struct Sender {
    transport: Transport,
    policy: AddressPolicy,
    /// What our own transport looks names up with.
    resolver: Option<GuardedResolver>,
}

impl Sender {
    /// Starts to describe a sender.
    pub fn builder() -> SenderBuilder {
        SenderBuilder::new()
    }

    /// Posts a message to an endpoint, once. `number` counts the attempts of the delivery from 1.
    ///
    /// It is over by the endpoint's timeout at the latest, whatever the endpoint does. The status
    /// line decides: of the body that follows at most 16 KiB are read, for at most a second, and a
    /// body that breaks off changes nothing. The signature is made for this attempt, just before
    /// it.
    ///
    /// The name of the endpoint is looked up for each new connection, and an answer is believed for
    /// 30 seconds, a failure for 10; the address policy decides anew each time. When no connection
    /// can be made, the next attempt looks the name up again.
    ///
    /// A kept connection that turns out to be closed before anything was written to it is replaced
    /// within the attempt. Once the request began to leave it is never sent a second time: what
    /// breaks off then is one failed attempt, marked as
    /// [ambiguous](Attempt::is_ambiguous).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection; the endpoint may or may not have got the message.
    pub async fn attempt(&self, endpoint: &Endpoint, message: &Message, number: u32) -> Attempt {
        let span = tracing::debug_span!(
            "attempt",
            { telemetry::HTTP_REQUEST_METHOD } = "POST",
            { telemetry::SERVER_ADDRESS } = endpoint.url().host_str(),
            { telemetry::URL_FULL } = field::Empty,
            { telemetry::MESSAGE_ID } = message.id(),
            { telemetry::ATTEMPT } = number,
            { telemetry::HTTP_REQUEST_RESEND_COUNT } = field::Empty,
            { telemetry::HTTP_RESPONSE_STATUS_CODE } = field::Empty,
            { telemetry::ERROR_TYPE } = field::Empty,
        );
        if !span.is_disabled() {
            span.record(telemetry::URL_FULL, endpoint.redacted_url());
            if number > 1 {
                span.record(telemetry::HTTP_REQUEST_RESEND_COUNT, number - 1);
            }
        }
        let started_at = Timestamp::now();
        let progress = Arc::new(Progress::new(endpoint.url().scheme() == "https"));
        let result = self
            .send(endpoint, message, started_at, &progress)
            .instrument(span.clone())
            .await;
        record_result(&span, &result);
        if let (Some(resolver), Err(error)) = (&self.resolver, &result)
            && error.kind().is_connect()
        {
            // It may have moved: the next attempt looks its name up again.
            resolver.forget(endpoint.url());
        }
        let attempt = Attempt {
            number,
            started_at,
            elapsed: progress.elapsed(),
            phases: progress.phases(),
            result,
        };
        telemetry::attempted(&attempt);
        attempt
    }

    async fn send(
        &self,
        endpoint: &Endpoint,
        message: &Message,
        now: Timestamp,
        progress: &Arc<Progress>,
    ) -> Result<Answer, AttemptError> {
        // A pooled connection to such an address cannot exist, and the resolver is not asked about
        // addresses: this is the only check of them.
        self.policy
            .check_url(endpoint.url())
            .map_err(|blocked| AttemptError::new(ErrorKind::BlockedAddress, blocked))?;

        let headers = headers(endpoint, message, now);
        let body = TrackedBody::new(message.body().clone(), Arc::clone(progress));
        let deadline = progress.start() + endpoint.timeout();
        let first_byte = deadline.min(progress.start() + endpoint.first_byte_timeout());
        let answer = self.transport.post(endpoint, headers, body, progress);
        let response = match timeout_at(first_byte, answer).await {
            Ok(response) => response?,
            Err(elapsed) if progress.is_sent() => {
                return Err(AttemptError::new(ErrorKind::ResponseTimeout, elapsed).ambiguous());
            }
            Err(elapsed) => return Err(AttemptError::new(ErrorKind::ConnectTimeout, elapsed)),
        };
        let answered_at = progress.answered();

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
        Ok(Answer {
            status: response.status(),
            retry_after,
            location,
            body_head: read_head(response.into_body(), answered_at, deadline).await,
        })
    }
}

fn headers(endpoint: &Endpoint, message: &Message, now: Timestamp) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(endpoint.headers().len() + 9);
    headers.extend(
        endpoint
            .headers()
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    let content_type = message.content_type().unwrap_or(endpoint.content_type());
    headers.insert(header::CONTENT_TYPE, content_type.clone());
    // Unless the endpoint has its own.
    headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
    headers.entry(header::ACCEPT).or_insert(ANYTHING);
    if let Some(signer) = endpoint.signer() {
        signer.sign(message.id(), now, message.body(), &mut headers);
    }
    if message.body().is_empty() {
        // Said by hand: the transport takes an empty body for none, and a POST without a length
        // puzzles some receivers.
        headers.insert(header::CONTENT_LENGTH, http::HeaderValue::from_static("0"));
    }
    headers
}

const ANYTHING: http::HeaderValue = http::HeaderValue::from_static("*/*");

const USER_AGENT: http::HeaderValue =
    http::HeaderValue::from_static(concat!("tidings/", env!("CARGO_PKG_VERSION")));

/// The beginning of a body: what comes before the limits of size and time. Whatever is left of it
/// is not read: dropping the response closes its connection.
async fn read_head<B>(mut body: B, answered_at: Instant, deadline: Instant) -> Bytes
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut head = BytesMut::new();
    let reading = async {
        while head.len() < MAX_ANSWER_BYTES {
            let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context));
            // It is over, or it broke off: the status has decided already.
            let Some(Ok(frame)) = frame.await else { break };
            // Trailers come last, and nobody wants them.
            let Ok(chunk) = frame.into_data() else { break };
            let room = MAX_ANSWER_BYTES - head.len();
            head.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
    };
    // What has come when the time is up is as good.
    let deadline = deadline.min(answered_at + BODY_TIME);
    drop(timeout_at(deadline, reading).await);
    head.freeze()
}

fn record_result(span: &Span, result: &Result<Answer, AttemptError>) {
    match result {
        Ok(answer) => {
            let status = answer.status.as_u16();
            span.record(telemetry::HTTP_RESPONSE_STATUS_CODE, status);
            if !answer.status.is_success() {
                span.record(telemetry::ERROR_TYPE, answer.status.as_str());
            }
        }
        Err(error) => {
            span.record(telemetry::ERROR_TYPE, error.kind().as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use http_body::Frame;

    use super::*;

    /// A few bytes, and then nothing and no end.
    struct Stalled(Option<Bytes>);

    impl Body for Stalled {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.0.take() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => Poll::Pending,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_gets_a_second_but_no_time_beyond_the_deadline() {
        for (left, expected) in [(30_000, 1000), (1000, 1000), (300, 300), (0, 0)] {
            let body = Stalled(Some(Bytes::from_static(b"first")));
            let start = Instant::now();
            let head = read_head(body, start, start + Duration::from_millis(left)).await;
            assert_eq!(start.elapsed(), Duration::from_millis(expected));
            assert_eq!(head, "first");
        }
    }

    #[tokio::test]
    async fn of_a_chunk_beyond_the_limit_the_beginning_is_kept() {
        let body = Stalled(Some(Bytes::from(vec![b'x'; 10 * MAX_ANSWER_BYTES])));
        let start = Instant::now();
        let head = read_head(body, start, start + Duration::from_secs(60)).await;
        assert_eq!(head.len(), MAX_ANSWER_BYTES);
    }
}
