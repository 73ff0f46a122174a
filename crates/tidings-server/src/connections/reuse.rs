//! Whether a connection is used for another request, and the headers that say so.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Version, header};

use crate::header_list::elements;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Whether the client wants no other response on the connection.
pub(super) fn is_last<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    if request.version() == Version::HTTP_10 {
        !has_option(headers, header::CONNECTION, "keep-alive")
    } else {
        closes(headers)
    }
}

/// Whether the headers say that the connection is closed after the response.
pub(super) fn closes(headers: &HeaderMap) -> bool {
    has_option(headers, header::CONNECTION, "close")
}

/// Makes the headers say that the connection is closed after the response, or how long it is kept; the header for
/// that is the one by which proxies stop reusing the connection before it is closed under a request.
pub(super) fn announce(headers: &mut HeaderMap, closes: bool, keep_alive: Duration) {
    if closes {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    } else if let Ok(hint) = HeaderValue::try_from(format!("timeout={}", keep_alive.as_secs())) {
        headers.insert(KEEP_ALIVE, hint);
    }
}

/// Whether a header has an option in its list, in any case of its letters.
pub(crate) fn has_option(headers: &HeaderMap, name: HeaderName, option: &str) -> bool {
    elements(headers, name, b',').any(|found| found.eq_ignore_ascii_case(option.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_says_whether_its_request_is_the_last() {
        for (version, options, expected) in [
            (Version::HTTP_11, "", false),
            (Version::HTTP_11, "keep-alive", false),
            (Version::HTTP_11, "TE, Close", true),
            (Version::HTTP_11, "closed", false),
            (Version::HTTP_11, "Köln, close", true),
            (Version::HTTP_10, "", true),
            (Version::HTTP_10, "Keep-Alive", false),
        ] {
            let request = Request::builder().version(version);
            let request = request.header(header::CONNECTION, options.as_bytes());
            let request = request.body(());
            assert_eq!(is_last(&request.unwrap()), expected, "{options}");
        }
    }

    #[test]
    fn a_response_says_either_that_the_connection_closes_or_how_long_it_is_kept() {
        let announced = |closes| {
            let mut headers = HeaderMap::new();
            announce(&mut headers, closes, Duration::from_secs(75));
            let text = |name| headers.get(name).map(|value| value.to_str().unwrap());
            let connection = text(header::CONNECTION).map(str::to_owned);
            (connection, text(KEEP_ALIVE).map(str::to_owned))
        };
        let closed = (Some("close".to_owned()), None);
        assert_eq!(announced(true), closed);
        let kept = (None, Some("timeout=75".to_owned()));
        assert_eq!(announced(false), kept);
    }
}
