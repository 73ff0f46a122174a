//! What the verifiers of both schemes share.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use sha2::Sha256;

/// How far the timestamp of a request may be from the verifier's clock, on either side: what the
/// libraries of Standard Webhooks use.
pub const DEFAULT_TOLERANCE: Duration = Duration::from_secs(300);

/// Why a request was not accepted as coming from the holder of the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A header that the scheme needs is absent.
    #[error("the header `{0}` is missing")]
    MissingHeader(&'static str),
    /// A header of the scheme is empty, repeated, or not of its form.
    #[error("the header `{0}` is malformed")]
    MalformedHeader(&'static str),
    /// The timestamp is further in the past than the tolerance.
    #[error("the timestamp is too old")]
    TooOld,
    /// The timestamp is further in the future than the tolerance.
    #[error("the timestamp is too far in the future")]
    TooNew,
    /// No signature of a known version matches.
    #[error("no signature matches")]
    NoMatch,
}

/// The keyed hash of some parts, one after the other.
pub(super) fn authenticate(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key).expect("HMAC is defined for keys of every length");
    for part in parts {
        mac.update(part);
    }
    mac
}

/// The only value of a header.
///
/// A repeated header is refused: two readers of one request could pick different values.
pub(super) fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    label: &'static str,
) -> Result<&'a str, VerifyError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(VerifyError::MissingHeader(label))?;
    if values.next().is_some() {
        return Err(VerifyError::MalformedHeader(label));
    }
    value
        .to_str()
        .map_err(|_| VerifyError::MalformedHeader(label))
}

/// Reads whole Unix seconds and compares them with the clock.
pub(super) fn check_timestamp(
    text: &str,
    label: &'static str,
    now: Timestamp,
    tolerance: Duration,
) -> Result<Timestamp, VerifyError> {
    let malformed = VerifyError::MalformedHeader(label);
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed);
    }
    let seconds: i64 = text.parse().map_err(|_| malformed)?;
    let timestamp = Timestamp::from_second(seconds).map_err(|_| malformed)?;
    // Whole seconds on both sides: a request of exactly the tolerance passes. Neither subtraction
    // overflows, for the range of a timestamp is far smaller than that of its type.
    let age = now.as_second() - seconds;
    let tolerance = i64::try_from(tolerance.as_secs()).unwrap_or(i64::MAX);
    if age > tolerance {
        Err(VerifyError::TooOld)
    } else if -age > tolerance {
        Err(VerifyError::TooNew)
    } else {
        Ok(timestamp)
    }
}
