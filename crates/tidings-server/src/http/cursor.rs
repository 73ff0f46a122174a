//! Where a stream starts, from the client's request.

use axum::http::HeaderMap;
use jiff::Timestamp;
use tidings_notify::{EventId, Since};

/// Reads the start of a stream from the `Last-Event-ID` header, the `last_event_id` parameter and
/// the `since` parameter.
///
/// A cursor takes precedence over `since`: a browser that reconnects repeats the URL, with its
/// `since`, and adds the header. Of two cursors in the same log the larger counts, because libraries
/// that imitate `EventSource` repeat a stale parameter; otherwise the header. A malformed cursor is
/// passed on: the stream begins with a gap, because an error status would end an `EventSource` for
/// good.
pub(crate) fn since(
    headers: &HeaderMap,
    last_event_id: Option<&str>,
    since: Option<&str>,
    default: Since,
) -> Since {
    let header = headers
        .get("last-event-id")
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let header = header.as_deref().filter(|id| !id.is_empty());
    let parameter = last_event_id
        .filter(|id| !id.is_empty())
        .or_else(|| since.filter(|since| since.parse::<EventId>().is_ok()));
    match (header, parameter) {
        (Some(header), Some(parameter)) => Since::Cursor(later(header, parameter).to_owned()),
        (Some(cursor), None) | (None, Some(cursor)) => Since::Cursor(cursor.to_owned()),
        (None, None) => since.map_or(default, named),
    }
}

fn named(since: &str) -> Since {
    match since {
        "now" | "" => Since::Now,
        "start" => Since::Start,
        "undelivered" => Since::Undelivered,
        other => match other.parse::<Timestamp>() {
            Ok(time) => Since::Time(time),
            Err(_) => Since::Cursor(other.to_owned()),
        },
    }
}

fn later<'a>(header: &'a str, parameter: &'a str) -> &'a str {
    match (header.parse::<EventId>(), parameter.parse::<EventId>()) {
        (Ok(of_header), Ok(of_parameter))
            if of_header.epoch == of_parameter.epoch && of_parameter.seq > of_header.seq =>
        {
            parameter
        }
        (Err(_), Ok(_)) => parameter,
        _ => header,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const THREE: &str = "00000000000000ff-3";
    const TEN: &str = "00000000000000ff-10";
    const ELSEWHERE: &str = "00000000000000aa-99";

    fn start(header: Option<&'static str>, id: Option<&str>, text: Option<&str>) -> Since {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert("last-event-id", HeaderValue::from_static(header));
        }
        since(&headers, id, text, Since::Now)
    }

    #[test]
    fn the_larger_cursor_of_one_log_wins_and_else_the_header() {
        let cursor = |text: &str| Since::Cursor(text.to_owned());
        assert_eq!(start(Some(THREE), Some(TEN), None), cursor(TEN));
        assert_eq!(start(Some(TEN), Some(THREE), None), cursor(TEN));
        assert_eq!(start(Some(THREE), Some(ELSEWHERE), None), cursor(THREE));
        assert_eq!(start(Some("garbage"), Some(THREE), None), cursor(THREE));
        assert_eq!(start(Some(THREE), Some("garbage"), None), cursor(THREE));
        assert_eq!(start(Some(THREE), None, Some(TEN)), cursor(TEN));
    }

    #[test]
    fn a_cursor_wins_over_since_when_a_browser_comes_back() {
        let cursor = Since::Cursor(THREE.to_owned());
        assert_eq!(start(Some(THREE), None, Some("start")), cursor);
        assert_eq!(start(None, Some(THREE), Some("now")), cursor);
    }

    #[test]
    fn since_has_words_times_and_cursors() {
        assert_eq!(start(None, None, None), Since::Now);
        assert_eq!(start(None, Some(""), Some("")), Since::Now);
        assert_eq!(start(None, None, Some("start")), Since::Start);
        assert_eq!(start(None, None, Some("undelivered")), Since::Undelivered);
        let time = "2026-11-21T10:00:00Z";
        assert_eq!(
            start(None, None, Some(time)),
            Since::Time(time.parse().unwrap())
        );
        for id in [THREE, "yesterday"] {
            assert_eq!(start(None, None, Some(id)), Since::Cursor(id.to_owned()));
        }
    }
}
