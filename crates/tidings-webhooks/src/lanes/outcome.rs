//! What an attempt means for its delivery. A pure function.

use std::error::Error as _;
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use tidings::retry::RetryPolicy;
use tidings::{Attempt, AttemptError, ErrorKind};
use tidings_reconnect::Obstacle;

use crate::clock::later;
use crate::store::AfterAttempt;
use crate::{AttemptRecord, DeliveryState};

/// Most of a response's body that is recorded, in bytes.
const MAX_RESPONSE_BYTES: usize = 4096;

/// Decides what follows an attempt by the rules of Standard Webhooks: 2xx is success, only 410 ends
/// a delivery early, and everything else is tried again, as long as the schedule lasts.
///
/// `tries` is how many attempts there were before this one since the delivery was last begun.
pub(super) fn decide(
    attempt: &Attempt,
    tries: u32,
    retry: &RetryPolicy,
    now: Timestamp,
    random: f64,
) -> AfterAttempt {
    let finish = |state, reason: Option<&str>| AfterAttempt::Finish {
        state,
        reason: reason.map(str::to_owned),
    };
    if attempt.status().is_some_and(|status| status.is_success()) {
        return finish(DeliveryState::Delivered, None);
    }
    if is_gone(attempt) {
        return finish(DeliveryState::Failed, Some("the endpoint is gone"));
    }
    if attempt.error_kind() == Some(ErrorKind::InvalidRequest) {
        return finish(DeliveryState::Failed, Some("the request is not valid"));
    }
    let made = tries.saturating_add(1);
    match retry.next_delay(made, Duration::ZERO, attempt.retry_after(), random) {
        Some(delay) => AfterAttempt::Retry(later(now, delay)),
        None => finish(DeliveryState::Failed, None),
    }
}

/// Whether the attempt says nothing about the endpoint: this machine could not make it.
pub(super) fn is_local(attempt: &Attempt) -> bool {
    attempt.error_kind().is_some_and(ErrorKind::is_local)
}

/// Whether the endpoint wants no more events.
pub(super) fn is_gone(attempt: &Attempt) -> bool {
    attempt.status() == Some(StatusCode::GONE)
}

/// What is kept of an attempt.
pub(super) fn record(attempt: &Attempt) -> AttemptRecord {
    let mut record = AttemptRecord::new(attempt.number, attempt.started_at, attempt.elapsed);
    match &attempt.result {
        Ok(reply) => {
            record.status = Some(reply.status.as_u16());
            let head = &reply.body_head[..reply.body_head.len().min(MAX_RESPONSE_BYTES)];
            // PostgreSQL keeps no NUL in a text.
            record.response = String::from_utf8_lossy(head).replace('\0', "\u{fffd}");
            record.error = reply.location.as_deref().map(explain_redirect);
        }
        Err(error) => record.error = Some(explain(error)),
    }
    record
}

/// Where a redirect leads, so that the owner of the endpoint can change its URL. What may be a
/// credential there is left out: a name, a password and the query.
fn explain_redirect(location: &str) -> String {
    // Programs that follow it take a backslash for a slash, pass over tabs, and do not count slashes.
    let location = location.replace(['\t', '\r', '\n'], "");
    let (place, rest) = match location.find(['?', '#']) {
        Some(end) => (&location[..end], "?\u{2026}"),
        None => (&location[..], ""),
    };
    let is_slash = |c| c == '/' || c == '\\';
    let prefix = &place[..place.find(is_slash).unwrap_or(place.len())];
    let path = &place[prefix.len()..];
    let slashes = path.len() - path.trim_start_matches(is_slash).len();
    let has_scheme = prefix.ends_with(':') && !prefix.contains('@');
    let authority = match prefix {
        "" if slashes == 1 => place.len(),
        "" => slashes,
        _ if has_scheme => prefix.len() + slashes,
        _ => 0,
    };
    let (before, after) = place.split_at(authority);
    let end = after.find(is_slash).unwrap_or(after.len());
    let host = after[..end].rfind('@').map_or(0, |at| at + 1);
    let place = format!("{before}{}{rest}", &after[host..]).replace(char::is_control, "\u{fffd}");
    format!("it redirects to {place}, which is not followed: change the URL of the endpoint")
}

/// What is wrong with the TLS of a receiver, where the library names it for programmers.
fn explain_tls(error: &AttemptError) -> Option<String> {
    if error.kind() != ErrorKind::Tls {
        return None;
    }
    let known = Obstacle::find(error)?;
    match known {
        Obstacle::OfAuthority => Some(
            "the certificate of the server is that of an authority itself, as `openssl req -x509` makes it: let the \
             authority sign another one for the server"
                .to_owned(),
        ),
        // The library knows the names, or the fault.
        Obstacle::WrongName | Obstacle::Certificate => None,
        known => Some(known.to_string()),
    }
}

/// Why there was no response, for the owner of the endpoint. The layers of libraries in between say
/// nothing to them: the last cause does, such as an expired certificate, where the kind does not say
/// everything already.
///
/// An address that is not allowed is one of a network that the owner may know nothing of, and so is what this machine
/// lacks: only the log has them.
pub(super) fn explain(error: &AttemptError) -> String {
    let is_whole = matches!(
        error.kind(),
        ErrorKind::Dns
            | ErrorKind::Refused
            | ErrorKind::ConnectTimeout
            | ErrorKind::ResponseTimeout
            | ErrorKind::Redirected
            | ErrorKind::BlockedAddress
            | ErrorKind::Local
    );
    if let Some(fault) = explain_tls(error) {
        return format!("{error}: {fault}");
    }
    let sources = std::iter::successors(error.source(), |source| (*source).source());
    match sources.last() {
        Some(cause) if !is_whole => format!("{error}: {cause}"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("client error (Connect)")]
    struct Layer(#[source] std::io::Error);

    #[test]
    fn an_owner_reads_where_a_redirect_leads_without_credentials() {
        for (location, place) in [
            ("https://shop.example/hook/", "https://shop.example/hook/"),
            ("/hook//@2/", "/hook//@2/"),
            ("hook", "hook"),
            ("//me:p@ss@shop.example:8443", "//shop.example:8443"),
            ("https:me:pass@shop.example/a@b", "shop.example/a@b"),
            ("https:me:pass@shop.example:/x", "shop.example:/x"),
            ("me:pass@shop.example", "shop.example"),
            ("https:\t//me:pass@shop.example/x", "https://shop.example/x"),
            ("https:/me:pass@shop.example/x", "https:/shop.example/x"),
            ("https:///me:pass@shop.example/x", "https:///shop.example/x"),
            ("https:/\\me:pass@shop.example/x", "https:/\\shop.example/x"),
            ("\\\\me:pass@shop.example\\a@b", "\\\\shop.example\\a@b"),
            ("/\\me:pass@shop.example/x", "/\\shop.example/x"),
            ("a.b/c:d@e", "a.b/c:d@e"),
            (
                "https://me@shop.example?key=1//2@3",
                "https://shop.example?\u{2026}",
            ),
            ("/log-in#token=1", "/log-in?\u{2026}"),
            ("/a\u{0}\u{85}b", "/a\u{fffd}\u{fffd}b"),
        ] {
            let said = explain_redirect(location);
            let expected = format!(
                "it redirects to {place}, which is not followed: change the URL of the endpoint"
            );
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn an_owner_reads_what_is_wrong_with_a_certificate() {
        use rustls::{CertificateError, Error, InvalidMessage, OtherError};
        let said = |error: Error| {
            let layer = Layer(std::io::Error::new(std::io::ErrorKind::InvalidData, error));
            explain(&AttemptError::new(ErrorKind::Tls, layer))
        };
        let of_authority = OtherError(std::sync::Arc::new(webpki::Error::CaUsedAsEndEntity));
        for (error, expected) in [
            (
                Error::InvalidCertificate(CertificateError::UnknownIssuer),
                "the certificate of the server is not from an authority that is trusted",
            ),
            (
                Error::InvalidCertificate(CertificateError::Other(of_authority)),
                "the certificate of the server is that of an authority itself, as `openssl req -x509` makes it: let the \
                 authority sign another one for the server",
            ),
            (
                Error::InvalidCertificate(CertificateError::Expired),
                "the certificate of the server has expired, or is not valid yet",
            ),
            (
                InvalidMessage::InvalidContentType.into(),
                "the server does not speak TLS at this port",
            ),
            (
                Error::InvalidCertificate(CertificateError::BadSignature),
                "invalid peer certificate: BadSignature",
            ),
        ] {
            assert_eq!(said(error), format!("the TLS handshake failed: {expected}"));
        }
    }

    #[test]
    fn an_owner_reads_the_kind_and_the_last_cause() {
        let error = |kind, cause: &str| {
            let layer = Layer(std::io::Error::other(cause.to_owned()));
            explain(&AttemptError::new(kind, layer))
        };
        assert_eq!(
            error(ErrorKind::Tls, "invalid peer certificate: Expired"),
            "the TLS handshake failed: invalid peer certificate: Expired"
        );
        assert_eq!(
            error(ErrorKind::Dns, "no records found for Query { name: x }"),
            "the host name could not be resolved"
        );
        assert_eq!(
            error(ErrorKind::Refused, "Connection refused (os error 111)"),
            "the connection was refused"
        );
        assert_eq!(
            error(
                ErrorKind::BlockedAddress,
                "the address 10.1.2.3 is not allowed"
            ),
            "the address is not allowed"
        );
        assert_eq!(
            error(ErrorKind::Local, "the proxy could not be reached"),
            "the sender's machine could not make the request"
        );
    }
}
