//! Where a stream starts.

use super::time::parse_time;
use crate::{EventId, Since};

/// The start was written by hand, and cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected `now`, `start`, `undelivered`, an event id, or a time such as 2026-11-21T10:00:00Z"
)]
pub struct InvalidSince;

/// Where a stream starts, from the `Last-Event-ID` header, and from the URL's parameters `last_event_id`
/// and `since`.
///
/// A cursor takes precedence over `since`: a browser that reconnects repeats the URL, with its
/// `since`, and adds the header. Of two cursors in the same log the larger counts, because libraries
/// that imitate `EventSource` repeat a stale parameter; otherwise the header. A malformed cursor is
/// passed on: the stream begins with a gap, because an error status would end an `EventSource` for
/// good.
///
/// # Errors
///
/// If a `since` that counts cannot be read: it was written by hand, and guessing would send the whole log.
///
/// ```
/// use tidings_notify::{Since, wire};
///
/// let since = wire::since(Some("00000000000000ff-3"), None, Some("start"), Since::Now)?;
/// assert_eq!(since, Since::Cursor("00000000000000ff-3".to_owned()));
/// # Ok::<_, wire::InvalidSince>(())
/// ```
pub fn since(
    header: Option<&str>,
    last_event_id: Option<&str>,
    since: Option<&str>,
    default: Since,
) -> Result<Since, InvalidSince> {
    let header = header.filter(|id| !id.is_empty());
    let parameter = last_event_id
        .filter(|id| !id.is_empty())
        .or_else(|| since.filter(|since| looks_like_id(since)));
    match (header, parameter) {
        (Some(header), Some(parameter)) => Ok(Since::Cursor(later(header, parameter).to_owned())),
        (Some(cursor), None) | (None, Some(cursor)) => Ok(Since::Cursor(cursor.to_owned())),
        (None, None) => since.map_or(Ok(default), named),
    }
}

/// Whether the text has the shape of an event id: sixteen hexadecimal digits, a hyphen, digits.
fn looks_like_id(text: &str) -> bool {
    text.split_once('-').is_some_and(|(epoch, seq)| {
        epoch.len() == 16
            && epoch.bytes().all(|digit| digit.is_ascii_hexdigit())
            && !seq.is_empty()
            && seq.bytes().all(|digit| digit.is_ascii_digit())
    })
}

fn named(since: &str) -> Result<Since, InvalidSince> {
    match since {
        "now" => Ok(Since::Now),
        "start" => Ok(Since::Start),
        "undelivered" => Ok(Since::Undelivered),
        // A `+` that is not percent-encoded arrives as a space.
        time => parse_time(&time.replace(' ', "+"))
            .map(Since::Time)
            .ok_or(InvalidSince),
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

    const THREE: &str = "00000000000000ff-3";
    const TEN: &str = "00000000000000ff-10";
    const ELSEWHERE: &str = "00000000000000aa-99";

    fn start(header: Option<&str>, id: Option<&str>, text: Option<&str>) -> Since {
        since(header, id, text, Since::Now).unwrap()
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
        assert_eq!(start(None, Some(""), Some("now")), Since::Now);
        assert_eq!(start(None, None, Some("start")), Since::Start);
        assert_eq!(start(None, None, Some("undelivered")), Since::Undelivered);
        let time = "2026-11-21T10:00:00Z";
        assert_eq!(
            start(None, None, Some(time)),
            Since::Time(time.parse().unwrap())
        );
        let (escaped, space) = ("2026-11-21T10:00:00+02:00", "2026-11-21T10:00:00 02:00");
        assert_eq!(
            start(None, None, Some(escaped)),
            start(None, None, Some(space))
        );
        for id in [
            THREE,
            "00000000000000FF-1",
            "00000000000000ff-99999999999999999999",
        ] {
            assert_eq!(start(None, None, Some(id)), Since::Cursor(id.to_owned()));
        }
    }

    #[test]
    fn a_since_that_is_neither_word_nor_time_nor_id_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026-11-21",
            "1700000000",
            "10m",
            "NOW",
            "ff-1",
            "-",
            "2026-11",
            "2026-11-21 10:00:00Z",
            "2026-11-21T10:00:60Z",
        ] {
            assert!(since(None, None, Some(text), Since::Now).is_err(), "{text}");
        }
        // It does not count beside a cursor.
        assert_eq!(
            start(Some(THREE), None, Some("yesterday")),
            Since::Cursor(THREE.to_owned())
        );
    }
}
