//! Headers whose value is a list.

use axum::http::{HeaderMap, HeaderName};

/// The elements of a header that is a list and may be given several times, without white space around them.
///
/// They are bytes: an element that is no ASCII, such as a cookie that a page has set in UTF-8, must not hide the others.
pub(crate) fn elements(
    headers: &HeaderMap,
    name: HeaderName,
    separator: u8,
) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(name).into_iter();
    values
        .flat_map(move |value| value.as_bytes().split(move |byte| *byte == separator))
        .map(<[u8]>::trim_ascii)
}
