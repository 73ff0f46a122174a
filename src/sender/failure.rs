//! What kind of failure an error of the HTTP library is, by the types in its chain.

use std::error::Error as StdError;
use std::io;

use hyper_util::client::legacy;

use super::connector::ConnectError;
use super::metered::Flooded;
use super::phases::Progress;
use super::{AttemptError, Endpoint};
use crate::ErrorKind;
use crate::address_guard::BlockedAddress;
use crate::resolver::LookupError;

/// The failure of a request by our own client.
pub(super) fn of_own(error: legacy::Error, progress: &Progress) -> AttemptError {
    let kind = if find::<BlockedAddress>(&error).is_some() {
        ErrorKind::BlockedAddress
    } else if find::<LookupError>(&error).is_some() {
        ErrorKind::Dns
    } else {
        match find::<ConnectError>(&error) {
            Some(ConnectError::TimedOut(_)) => ErrorKind::ConnectTimeout,
            Some(ConnectError::Tls(_)) => ErrorKind::Tls,
            Some(ConnectError::Tcp(_)) => match find::<io::Error>(&error).map(io::Error::kind) {
                Some(io::ErrorKind::ConnectionRefused) => ErrorKind::Refused,
                Some(io::ErrorKind::TimedOut) => ErrorKind::ConnectTimeout,
                _ => ErrorKind::Connect,
            },
            None => of_exchange(&error),
        }
    };
    // A failure to connect leaves nothing in doubt, even for a body too short to be tracked.
    let is_ambiguous = !error.is_connect() && progress.is_sent();
    let error = AttemptError::new(kind, error);
    if is_ambiguous {
        error.ambiguous()
    } else {
        error
    }
}

/// The failure of a request by a client of the caller's own, which connects in its own way.
pub(super) fn of_given(
    error: reqwest::Error,
    endpoint: &Endpoint,
    progress: &Progress,
) -> AttemptError {
    // The URL may hold a key, and whoever reads the error knows the endpoint.
    let error = error.without_url();
    let kind = if error.is_builder() {
        ErrorKind::InvalidRequest
    } else if error.is_redirect() {
        ErrorKind::Redirected
    } else if error.is_connect() && error.is_timeout() {
        ErrorKind::ConnectTimeout
    } else if error.is_timeout() {
        ErrorKind::ResponseTimeout
    } else if error.is_dns() {
        ErrorKind::Dns
    } else if error.is_connect() {
        // The operating system numbers its errors; what TLS finds wrong has no such number.
        match find::<io::Error>(&error) {
            Some(io) if io.kind() == io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
            Some(io) if io.raw_os_error().is_some() => ErrorKind::Connect,
            _ if endpoint.url().scheme() == "https" => ErrorKind::Tls,
            _ => ErrorKind::Connect,
        }
    } else {
        of_exchange(&error)
    };
    let is_ambiguous = !error.is_connect() && !error.is_builder() && progress.is_sent();
    let error = AttemptError::new(kind, error);
    if is_ambiguous {
        error.ambiguous()
    } else {
        error
    }
}

/// The failure of a request that had a connection.
fn of_exchange(error: &(dyn StdError + 'static)) -> ErrorKind {
    let is_flood = find::<io::Error>(error)
        .and_then(io::Error::get_ref)
        .and_then(|cause| cause.downcast_ref::<Flooded>())
        .is_some();
    if is_flood || find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) {
        ErrorKind::Protocol
    } else {
        ErrorKind::Reset
    }
}

/// The first error of a type in the chain.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
