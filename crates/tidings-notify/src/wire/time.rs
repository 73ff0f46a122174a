//! Times as requests write them.

use jiff::Timestamp;

/// Parses a time in [RFC 3339](https://www.rfc-editor.org/rfc/rfc3339#section-5.6), and nothing that only
/// looks like one: no space in place of the `T`, no leap second, no name of a time zone. It is from
/// 0001-01-01T00:00:00Z, because the year before could not be written in the same form, to 9999-12-30T22:00:00Z, the
/// last second of a [`Timestamp`].
///
/// ```
/// use tidings_notify::wire::parse_time;
///
/// assert_eq!(
///     parse_time("2026-11-21T12:00:00.5+02:00"),
///     parse_time("2026-11-21T10:00:00.5Z")
/// );
/// assert_eq!(parse_time("2026-11-21 10:00:00Z"), None);
/// ```
pub fn parse_time(text: &str) -> Option<Timestamp> {
    const MOMENT: &str = "0000-00-00T00:00:00";
    let (moment, rest) = text.split_at_checked(MOMENT.len())?;
    let offset = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|digit: char| digit.is_ascii_digit()),
        None => rest,
    };
    let is_offset = match offset.strip_prefix(['+', '-']) {
        Some(offset) => has_shape(offset, "00:00"),
        None => offset.eq_ignore_ascii_case("Z"),
    };
    let is_time = has_shape(moment, MOMENT) && !moment.ends_with("60") && is_offset;
    let time: Timestamp = is_time.then(|| text.parse().ok()).flatten()?;
    (FIRST..=LAST).contains(&time).then_some(time)
}

/// The first moment of the year 1.
const FIRST: Timestamp = Timestamp::constant(-62_135_596_800, 0);

/// The last moment. A [`Timestamp`] itself goes on for the rest of this second.
const LAST: Timestamp = Timestamp::constant(253_402_207_200, 0);

/// Whether the text has a digit where the shape has one, and else the same characters.
fn has_shape(text: &str, shape: &str) -> bool {
    let fits = |(found, shape): (u8, u8)| match shape {
        b'0' => found.is_ascii_digit(),
        _ => found.eq_ignore_ascii_case(&shape),
    };
    text.len() == shape.len() && text.bytes().zip(shape.bytes()).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_rfc_3339_are_read() {
        let ten = "2026-11-21T10:00:00Z".parse().ok();
        for text in [
            "2026-11-21T10:00:00Z",
            "2026-11-21t10:00:00z",
            "2026-11-21T10:00:00.000Z",
            "2026-11-21T10:00:00.000000000+00:00",
            "2026-11-21T12:30:00+02:30",
            "2026-11-20T22:00:00-12:00",
        ] {
            assert_eq!(parse_time(text), ten, "{text}");
        }
        for text in ["0001-01-01T00:00:00Z", "0000-12-31T23:00:00-01:00"] {
            assert_eq!(parse_time(text), Some(FIRST), "{text}");
        }
        for text in ["9999-12-30T22:00:00Z", "9999-12-30T23:30:00.0+01:30"] {
            assert_eq!(parse_time(text), Some(LAST), "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_a_time_is_refused() {
        for text in [
            "",
            "2026-11-21",
            "2026-11-21T10:00:00",
            "2026-11-21 10:00:00Z",
            "2026-11-21T10:00Z",
            "2026-11-21T10:00:60Z",
            "2026-11-21T10:00:00.Z",
            "2026-11-21T10:00:00,5Z",
            "2026-11-21T10:00:00+02",
            "2026-11-21T10:00:00+0200",
            "2026-11-21T10:00:00+02:00:00",
            "2026-11-21T10:00:00Z[UTC]",
            "20261121T100000Z",
            "+002026-11-21T10:00:00Z",
            "2026-02-30T10:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T10:00:00Z ",
            "2026-11-21T10:00:00Ä",
            "0000-01-01T00:00:00Z",
            "0000-12-31T23:59:59.999999Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-30T22:00:00.000001Z",
            "9999-12-30T22:00:00.999999999Z",
            "9999-12-30T22:00:01Z",
            "9999-12-30T23:30:00.5+01:30",
            "9999-12-30T22:00:60Z",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
