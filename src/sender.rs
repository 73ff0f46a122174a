//! One HTTP request: made, timed, bounded, and judged.

mod attempt;
mod body;
mod failure;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, header};
use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, Span, field};

pub use attempt::{Answer, Attempt, AttemptError};

use crate::address_guard::GuardedResolver;
use crate::classify::parse_retry_after;
use crate::{AddressPolicy, ConfigError, Endpoint, ErrorKind, Message, telemetry};
use body::{Progress, TrackedBody};

/// Most bytes of an answer's body that are kept for the report.
pub const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// Longest time that is spent on an answer's body once its status is known.
const BODY_TIME: Duration = Duration::from_secs(1);

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle connections kept per host. More serve nobody: a connection that was idle for 90 seconds is
/// closed.
const MAX_IDLE_PER_HOST: usize = 32;

const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

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
    client: reqwest::Client,
    policy: AddressPolicy,
}

impl Sender {
    /// Starts to describe a sender.
    pub fn builder() -> SenderBuilder {
        SenderBuilder {
            client: None,
            policy: AddressPolicy::Any,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
        }
    }

    /// Posts a message to an endpoint, once. `number` counts the attempts of the delivery from 1.
    ///
    /// It is over by the endpoint's timeout at the latest, whatever the endpoint does. The status
    /// line decides: of the body that follows at most 16 KiB are read, for at most a second, and a
    /// body that breaks off changes nothing. The signature is made for this attempt, just before
    /// it.
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
        let start = Instant::now();
        let result = self
            .send(endpoint, message, start)
            .instrument(span.clone())
            .await;
        record_result(&span, &result);
        Attempt {
            number,
            started_at,
            elapsed: start.elapsed(),
            result,
        }
    }

    async fn send(
        &self,
        endpoint: &Endpoint,
        message: &Message,
        start: Instant,
    ) -> Result<Answer, AttemptError> {
        // A pooled connection to such an address cannot exist, and the resolver is not asked about
        // addresses: this is the only check of them.
        self.policy
            .check_url(endpoint.url())
            .map_err(|blocked| AttemptError::new(ErrorKind::BlockedAddress, blocked))?;

        let progress = Arc::new(Progress::default());
        let request = request(endpoint, message, Arc::clone(&progress));
        let deadline = start + endpoint.timeout();
        let first_byte = deadline.min(start + endpoint.first_byte_timeout());
        let response = match timeout_at(first_byte, self.client.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(failure::classify(error, endpoint, &progress)),
            Err(elapsed) if progress.is_sent() => {
                return Err(AttemptError::new(ErrorKind::ResponseTimeout, elapsed).ambiguous());
            }
            Err(elapsed) => return Err(AttemptError::new(ErrorKind::ConnectTimeout, elapsed)),
        };

        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| parse_retry_after(value, Timestamp::now()));
        let location = response
            .headers()
            .get(header::LOCATION)
            .filter(|_| response.status().is_redirection())
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        Ok(Answer {
            status: response.status(),
            retry_after,
            location,
            body_head: read_head(response, deadline).await,
        })
    }
}

fn request(endpoint: &Endpoint, message: &Message, progress: Arc<Progress>) -> reqwest::Request {
    let mut headers = HeaderMap::with_capacity(endpoint.headers().len() + 8);
    headers.extend(
        endpoint
            .headers()
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    let content_type = message.content_type().unwrap_or(endpoint.content_type());
    headers.insert(header::CONTENT_TYPE, content_type.clone());
    headers.insert(header::USER_AGENT, USER_AGENT);
    if let Some(signer) = endpoint.signer() {
        signer.sign(message.id(), Timestamp::now(), message.body(), &mut headers);
    }
    if message.body().is_empty() {
        // Said by hand: the transport takes an empty body for none, and a POST without a length
        // puzzles some receivers.
        headers.insert(header::CONTENT_LENGTH, http::HeaderValue::from_static("0"));
    }
    let mut request = reqwest::Request::new(Method::POST, endpoint.url().clone());
    *request.headers_mut() = headers;
    let body = TrackedBody::new(message.body().clone(), progress);
    *request.body_mut() = Some(reqwest::Body::wrap(body));
    request
}

const USER_AGENT: http::HeaderValue =
    http::HeaderValue::from_static(concat!("tidings/", env!("CARGO_PKG_VERSION")));

/// The beginning of a body: what comes before the limits of size and time. Whatever is left of it
/// is not read: dropping the response closes its connection.
async fn read_head(mut response: reqwest::Response, deadline: Instant) -> Bytes {
    let deadline = deadline.min(Instant::now() + BODY_TIME);
    let mut head = BytesMut::new();
    while head.len() < MAX_ANSWER_BYTES {
        match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                let room = MAX_ANSWER_BYTES - head.len();
                head.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
            // It is over, it broke off, or it takes too long. The status has decided already.
            Ok(Ok(None) | Err(_)) | Err(_) => break,
        }
    }
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

/// Describes a [`Sender`].
#[derive(Debug)]
#[must_use]
pub struct SenderBuilder {
    client: Option<reqwest::Client>,
    policy: AddressPolicy,
    connect_timeout: Duration,
}

impl SenderBuilder {
    /// Says which addresses requests may go to. The default is [`AddressPolicy::Any`], for URLs
    /// that the owner of the sender chose; strangers' URLs need [`AddressPolicy::PublicOnly`].
    pub fn address_policy(mut self, policy: AddressPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets how long a connection may take, TLS included. More than zero; the default is 5 seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sends through an HTTP client of your own, for its TLS, proxy or pool settings.
    ///
    /// Such a client does as it was told: build it without redirects, retries and decompression,
    /// and with a connect timeout. It cannot be combined with [`AddressPolicy::PublicOnly`],
    /// because it looks names up by itself.
    pub fn http_client(mut self, client: reqwest::Client) -> Self {
        self.client = Some(client);
        self
    }

    /// Builds the sender.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the field:
    /// - `connect_timeout` when it is zero;
    /// - `http_client` when there is one and the address policy is not [`AddressPolicy::Any`], or
    ///   when none can be built, for instance because TLS cannot be set up.
    pub fn build(self) -> Result<Sender, ConfigError> {
        if self.connect_timeout.is_zero() {
            return Err(ConfigError::new("connect_timeout", "more than zero"));
        }
        let client = match self.client {
            None => build_client(self.policy, self.connect_timeout)?,
            Some(client) if self.policy == AddressPolicy::Any => client,
            Some(_) => {
                return Err(ConfigError::new(
                    "http_client",
                    "none together with a policy on addresses",
                ));
            }
        };
        Ok(Sender {
            client,
            policy: self.policy,
        })
    }
}

/// Everything that a stranger's answer could use against the sender is off, also what features of
/// the HTTP client switch on by default and another package in the same program may have enabled.
fn build_client(
    policy: AddressPolicy,
    connect_timeout: Duration,
) -> Result<reqwest::Client, ConfigError> {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        // A proxy would look names up in our place and go where it likes.
        .no_proxy()
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .no_hickory_dns()
        .dns_resolver(Arc::new(GuardedResolver(policy)))
        .connect_timeout(connect_timeout)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .http2_keep_alive_timeout(Duration::from_secs(10))
        .build()
        .map_err(|source| {
            ConfigError::new("http_client", "a working TLS setup").with_source(source)
        })
}
