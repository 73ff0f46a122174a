//! What keeps a program from its server, in words for the person who can change it.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use rustls::CertificateError;

/// How the client library of Redis keeps causes: an error by itself, which hides the one inside.
type Shared = Arc<dyn Error + Send + Sync>;

/// What keeps a program from its server, as a sentence of the house. It stands in place of the error of
/// the operating system or of TLS, whose text is written for programmers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// The host refuses connections to the port.
    #[error("no server listens at the host and port of the URL")]
    NotListening,
    /// The path of a Unix socket does not exist.
    #[error("there is no socket at the path of the URL")]
    NoSocket,
    /// The operating system forbids the connection, for instance by the rights of a Unix socket.
    #[error("the operating system does not let this user connect")]
    Forbidden,
    /// The name of the host has no address, or no name server could be asked.
    #[error("the host of the URL has no address that can be found")]
    UnknownHost,
    /// The network has no way to the host.
    #[error("the network has no way to the host of the URL")]
    NoRoute,
    /// The server did not reply within the limit.
    #[error("the server did not reply in time")]
    Late,
    /// The connection ended, mostly because the server stopped or expects something else.
    #[error("the connection ended before the server had replied")]
    Ended,
    /// The port is not one for TLS.
    #[error("the server does not speak TLS at this port")]
    NotTls,
    /// The server ended the TLS handshake.
    #[error("the server ended the TLS handshake; it may demand a certificate of the client")]
    TlsRefused,
    /// No authority that is trusted has signed the certificate of the server.
    #[error("the certificate of the server is not from an authority that is trusted")]
    UnknownAuthority,
    /// The certificate of the server names other hosts.
    #[error("the certificate of the server is not for the host of the URL")]
    WrongName,
    /// The certificate of the server has expired, or is for later.
    #[error("the certificate of the server has expired, or is not valid yet")]
    NotValidNow,
    /// The certificate of the server is that of an authority (`CA:TRUE`).
    #[error(
        "the certificate of the server is that of an authority itself, as `openssl req -x509` makes it: let the authority \
         sign another one for the server, and trust the authority (for PostgreSQL, as `sslrootcert`)"
    )]
    OfAuthority,
    /// The certificate of the server has another fault.
    #[error("the certificate of the server cannot be accepted")]
    Certificate,
}

impl Obstacle {
    /// Looks for an obstacle in an error and its causes. `None` if none is known.
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let shared: Option<&Shared> = error.downcast_ref();
            let error = shared.map_or(error, |shared| &**shared);
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return Self::of_io(error);
            }
            if let Some(error) = error.downcast_ref::<rustls::Error>() {
                return Self::of_tls(error);
            }
            cause = error.source();
        }
        None
    }

    /// The obstacle behind an error of the operating system, or one that a library returns in its place.
    pub fn of_io(error: &io::Error) -> Option<Self> {
        if let Some(inner) = error.get_ref() {
            if let Some(error) = inner.downcast_ref::<rustls::Error>() {
                return Self::of_tls(error);
            }
            if let Some(error) = inner.downcast_ref::<io::Error>() {
                return Self::of_io(error);
            }
        }
        let is_of_system = error.raw_os_error().is_some();
        match error.kind() {
            ErrorKind::ConnectionRefused => Some(Self::NotListening),
            ErrorKind::NotFound if is_of_system => Some(Self::NoSocket),
            ErrorKind::PermissionDenied if is_of_system => Some(Self::Forbidden),
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Some(Self::NoRoute),
            ErrorKind::TimedOut => Some(Self::Late),
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof => Some(Self::Ended),
            // Errors of libraries have a kind that can be named. What the standard library reports without
            // one, and the operating system has no number for, is a failed lookup of a name.
            ErrorKind::Other
            | ErrorKind::InvalidData
            | ErrorKind::InvalidInput
            | ErrorKind::NotConnected
            | ErrorKind::NotFound
            | ErrorKind::PermissionDenied => None,
            _ if !is_of_system => Some(Self::UnknownHost),
            _ => None,
        }
    }

    fn of_tls(error: &rustls::Error) -> Option<Self> {
        use rustls::Error;
        match error {
            Error::InvalidMessage(_) => Some(Self::NotTls),
            Error::AlertReceived(_) => Some(Self::TlsRefused),
            Error::InvalidCertificate(fault) => Some(match fault {
                CertificateError::UnknownIssuer => Self::UnknownAuthority,
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => Self::WrongName,
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::NotValidNow,
                CertificateError::Other(other) => match other.0.downcast_ref() {
                    Some(webpki::Error::CaUsedAsEndEntity) => Self::OfAuthority,
                    _ => Self::Certificate,
                },
                _ => Self::Certificate,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::ToSocketAddrs;

    use rustls::{AlertDescription, InvalidMessage};

    use super::*;

    #[test]
    fn errors_of_the_system_and_of_tls_are_named() {
        let unknown_host = ("two..dots", 1).to_socket_addrs().unwrap_err();
        let tls = |error: rustls::Error| io::Error::new(ErrorKind::InvalidData, error);
        let certificate = |fault| tls(rustls::Error::InvalidCertificate(fault));
        let alert = AlertDescription::CertificateRequired;
        for (error, expected) in [
            (io::Error::from_raw_os_error(111), Obstacle::NotListening),
            (io::Error::from_raw_os_error(2), Obstacle::NoSocket),
            (io::Error::from_raw_os_error(13), Obstacle::Forbidden),
            (io::Error::from_raw_os_error(101), Obstacle::NoRoute),
            (io::Error::from_raw_os_error(113), Obstacle::NoRoute),
            (io::Error::from_raw_os_error(104), Obstacle::Ended),
            (io::Error::from_raw_os_error(32), Obstacle::Ended),
            (io::Error::from(ErrorKind::UnexpectedEof), Obstacle::Ended),
            (io::Error::from(ErrorKind::TimedOut), Obstacle::Late),
            (unknown_host, Obstacle::UnknownHost),
            (
                tls(InvalidMessage::InvalidContentType.into()),
                Obstacle::NotTls,
            ),
            (
                tls(rustls::Error::AlertReceived(alert)),
                Obstacle::TlsRefused,
            ),
            (
                certificate(CertificateError::UnknownIssuer),
                Obstacle::UnknownAuthority,
            ),
            (
                certificate(CertificateError::NotValidForName),
                Obstacle::WrongName,
            ),
            (
                certificate(CertificateError::Expired),
                Obstacle::NotValidNow,
            ),
            (
                certificate(CertificateError::Other(rustls::OtherError(Arc::new(
                    webpki::Error::CaUsedAsEndEntity,
                )))),
                Obstacle::OfAuthority,
            ),
            (
                certificate(CertificateError::BadEncoding),
                Obstacle::Certificate,
            ),
        ] {
            assert_eq!(Obstacle::find(&error), Some(expected), "{error:?}");
            let wrapped = io::Error::other(error);
            assert_eq!(Obstacle::find(&wrapped), Some(expected), "{wrapped:?}");
        }
    }

    #[test]
    fn errors_without_a_known_obstacle_keep_their_own_words() {
        for error in [
            io::Error::other("a library's own"),
            io::Error::new(ErrorKind::InvalidInput, "a library's own"),
            io::Error::new(ErrorKind::PermissionDenied, "a library's own"),
            io::Error::from_raw_os_error(24),
        ] {
            assert_eq!(Obstacle::find(&error), None, "{error:?}");
        }
    }
}
