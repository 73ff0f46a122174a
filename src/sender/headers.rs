use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;

use crate::signing::{WEBHOOK_ID, sign};
use crate::{AttemptError, Endpoint, ErrorKind, Message};

const ANYTHING: HeaderValue = HeaderValue::from_static("*/*");

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("tidings/", env!("CARGO_PKG_VERSION")));

/// Room for the headers that are not the endpoint's: those below, two signatures, and those of the
/// transport.
const OWN_HEADERS: usize = 12;

/// The headers of one attempt. `webhook-id` is on every request, signed or not, so that a receiver
/// can recognise a repetition.
pub(super) fn headers(
    endpoint: &Endpoint,
    message: &Message,
    now: Timestamp,
) -> Result<HeaderMap, AttemptError> {
    let mut headers = HeaderMap::with_capacity(endpoint.headers().len() + OWN_HEADERS);
    headers.extend(
        endpoint
            .headers()
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    let content_type = message.content_type().unwrap_or(endpoint.content_type());
    headers.insert(header::CONTENT_TYPE, content_type.clone());
    let id = HeaderValue::from_str(message.id())
        .map_err(|source| AttemptError::new(ErrorKind::InvalidRequest, source))?;
    headers.insert(WEBHOOK_ID, id);
    let (signers, url) = (endpoint.signers(), endpoint.url());
    sign(
        signers,
        message.id(),
        now,
        url,
        message.body(),
        &mut headers,
    )
    .map_err(|source| AttemptError::new(ErrorKind::Local, source))?;
    // Unless the endpoint or a signer has its own.
    headers.entry(header::USER_AGENT).or_insert(USER_AGENT);
    headers.entry(header::ACCEPT).or_insert(ANYTHING);
    if message.body().is_empty() {
        // The transport sends no length with an empty body, and a POST without one puzzles some
        // receivers.
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    Ok(headers)
}
