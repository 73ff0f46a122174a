//! What kind of failure an error of the HTTP library is, by the types in its chain.

use std::error::Error as StdError;
use std::io;

use tokio::time::Instant;

use super::connector::{ConnectError, TcpError};
use crate::ErrorKind;
use crate::address_guard::BlockedAddress;
use crate::resolver::LookupError;

/// The kind of a connection that could not be made. When no name server replied to a lookup that
/// began at some time, `of_silence` decides.
pub(super) fn of_connection(
    error: &ConnectError,
    of_silence: impl FnOnce(Instant) -> ErrorKind,
) -> ErrorKind {
    if find::<BlockedAddress>(error).is_some() {
        return ErrorKind::BlockedAddress;
    }
    if is_at_proxy(error) {
        return ErrorKind::Local;
    }
    if let Some(lookup) = find::<LookupError>(error) {
        return match lookup.silent_since() {
            Some(since) => of_silence(since),
            None => ErrorKind::Dns,
        };
    }
    match error {
        ConnectError::TimedOut {
            lookup_pending_since: Some(since),
            ..
        } => of_silence(*since),
        ConnectError::TimedOut { .. } => ErrorKind::ConnectTimeout,
        ConnectError::Tls(_) => ErrorKind::Tls,
        ConnectError::TlsUnavailable(_) => ErrorKind::Local,
        ConnectError::Tcp(_) => match find::<io::Error>(error) {
            Some(io) if is_local(io) => ErrorKind::Local,
            Some(io) if io.kind() == io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
            Some(io) if io.kind() == io::ErrorKind::TimedOut => ErrorKind::ConnectTimeout,
            _ => ErrorKind::Connect,
        },
    }
}

/// Whether the proxy could not be reached, or does not know this client, which says nothing about the
/// receiver. One that opens no tunnel for another reason may have found that the receiver is down.
fn is_at_proxy(error: &ConnectError) -> bool {
    match error {
        ConnectError::TimedOut { at_proxy, .. } => *at_proxy,
        ConnectError::Tcp(TcpError::Proxy(_) | TcpError::ProxyAuthRequired) => true,
        // Within what a tunnel reports.
        error => matches!(find(error), Some(TcpError::Proxy(_))),
    }
}

/// The kind of a failure of a request that had a connection.
pub(in crate::transport) fn of_exchange(error: &(dyn StdError + 'static)) -> ErrorKind {
    if find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) {
        ErrorKind::Protocol
    } else {
        ErrorKind::Reset
    }
}

/// Whether the receiver said, over HTTP/2, that it did nothing with the request.
pub(super) fn is_refused(error: &hyper::Error) -> bool {
    http2(error).is_some_and(|error| error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// Whether a failure over HTTP/2 is one of the whole connection, and not of one request.
pub(super) fn ends_connection(error: &hyper::Error) -> bool {
    http2(error).is_none_or(|error| error.is_go_away() || error.is_io())
}

/// The error of HTTP/2 that another one wraps.
fn http2(error: &hyper::Error) -> Option<&h2::Error> {
    find(error)
}

/// Whether the machine is short of what each connection needs.
pub(super) fn is_exhaustion(error: &ConnectError) -> bool {
    is_without_address(error) || find(error).is_some_and(is_limit)
}

/// Whether the system had no address or port to connect from.
pub(super) fn is_without_address(error: &(dyn StdError + 'static)) -> bool {
    let error = find::<io::Error>(error);
    error.is_some_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// Whether an error of the operating system says something about this machine only.
///
/// A missing route or permission is not among them: it belongs to the address that was chosen, and may come from
/// a router or a firewall elsewhere. Neither is a missing address to connect from, if this machine has none of the
/// family: see [`TcpError::NoRoute`].
pub(in crate::transport) fn is_local(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::NetworkDown | io::ErrorKind::OutOfMemory
    ) || is_limit(error)
}

/// Limits that the standard library has no kind for: open files, and buffers of sockets.
#[cfg(unix)]
pub(crate) fn is_limit(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS)
    )
}

/// Limits that the standard library has no kind for: open files (`WSAEMFILE`), and buffers of
/// sockets (`WSAENOBUFS`).
#[cfg(not(unix))]
pub(crate) fn is_limit(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(10024 | 10055))
}

/// The first error of a type in a chain.
pub(in crate::transport) fn find<'a, E: StdError + 'static>(
    error: &'a (dyn StdError + 'static),
) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // One of the standard library does not name the error in it as its source.
        let inside = error.downcast_ref().and_then(io::Error::get_ref);
        next = match inside {
            Some(inside) => Some(inside),
            None => error.source(),
        };
    }
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn errors_of_this_machine_are_distinguished_from_those_of_the_other_one() {
        for code in [
            libc::EMFILE,
            libc::ENFILE,
            libc::EADDRNOTAVAIL,
            libc::ENETDOWN,
            libc::ENOBUFS,
            libc::ENOMEM,
        ] {
            let error = io::Error::from_raw_os_error(code);
            assert!(is_local(&error), "{error}");
        }
        for code in [
            libc::ECONNREFUSED,
            libc::ECONNRESET,
            libc::EHOSTUNREACH,
            libc::ENETUNREACH,
            libc::EACCES,
            libc::EPERM,
            libc::ETIMEDOUT,
            libc::EPIPE,
        ] {
            let error = io::Error::from_raw_os_error(code);
            assert!(!is_local(&error), "{error}");
        }
    }
}
