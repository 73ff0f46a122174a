use std::error::Error as StdError;
use std::io;

use super::phases::Progress;
use super::{AttemptError, Endpoint};
use crate::ErrorKind;
use crate::address_guard::BlockedAddress;

/// Finds out what kind of failure an error of the HTTP client is, by the types in its chain.
pub(super) fn classify(
    error: reqwest::Error,
    endpoint: &Endpoint,
    progress: &Progress,
) -> AttemptError {
    // The URL may hold a key, and whoever reads the error knows the endpoint.
    let error = error.without_url();
    let kind = kind(&error, endpoint.url().scheme() == "https");
    // A failure to connect leaves nothing in doubt, even for a body too short to be tracked.
    let ambiguous = !error.is_connect() && !error.is_builder() && progress.is_sent();
    let error = AttemptError::new(kind, error);
    if ambiguous { error.ambiguous() } else { error }
}

fn kind(error: &reqwest::Error, https: bool) -> ErrorKind {
    if find::<BlockedAddress>(error).is_some() {
        ErrorKind::BlockedAddress
    } else if error.is_builder() {
        ErrorKind::InvalidRequest
    } else if error.is_connect() && error.is_timeout() {
        ErrorKind::ConnectTimeout
    } else if error.is_timeout() {
        ErrorKind::ResponseTimeout
    } else if error.is_dns() {
        ErrorKind::Dns
    } else if error.is_connect() {
        // The operating system numbers its errors; what TLS finds wrong has no such number.
        match find::<io::Error>(error) {
            Some(io) if io.kind() == io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
            Some(io) if io.raw_os_error().is_some() => ErrorKind::Connect,
            _ if https => ErrorKind::Tls,
            _ => ErrorKind::Connect,
        }
    } else if find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) {
        ErrorKind::Protocol
    } else {
        ErrorKind::Reset
    }
}

/// The first error of a type in the chain.
fn find<'a, E: StdError + 'static>(error: &'a reqwest::Error) -> Option<&'a E> {
    let mut next: Option<&'a (dyn StdError + 'static)> = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
