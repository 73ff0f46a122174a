use std::time::{Duration, SystemTime};

use http::HeaderValue;
use jiff::Timestamp;

/// Longest wait that an endpoint can ask for: a day.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// How long an endpoint asks to get no requests, from its `Retry-After`: whole seconds or an HTTP
/// date ([RFC 9110]), cut to [`MAX_RETRY_AFTER`]. A date in the past is no wait; anything else is
/// ignored. It never panics.
///
/// It is for programs that make requests with another HTTP client; [`Sender`](crate::Sender) has done
/// it already.
///
/// [RFC 9110]: https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
pub fn parse_retry_after(value: &HeaderValue, now: Timestamp) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number beyond the type is beyond the cap too.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        date.duration_since(SystemTime::from(now))
            .unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Option<Duration> {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        parse_retry_after(&HeaderValue::from_str(text).unwrap(), now)
    }

    #[test]
    fn seconds_and_dates_are_understood_and_capped() {
        for (text, expected) in [
            ("0", 0),
            ("120", 120),
            ("1000000000", 86_400),
            ("99999999999999999999999999", 86_400),
            ("Sat, 21 Nov 2026 12:01:00 GMT", 60),
            ("Sat, 21 Nov 2026 11:00:00 GMT", 0),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
            ("Saturday, 21-Nov-26 12:01:00 GMT", 60),
        ] {
            assert_eq!(parsed(text), Some(Duration::from_secs(expected)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_ignored() {
        for text in [
            "",
            "-1",
            "1.5",
            "1e3",
            "soon",
            "2026-11-21T12:01:00Z",
            "Sat, 99 Nov 2026",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_value_panics_or_exceeds_the_cap(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
                    prop_assert!(parse_retry_after(&value, now).is_none_or(|wait| wait <= MAX_RETRY_AFTER));
                }
            }
        }
    }
}
