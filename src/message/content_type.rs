use http::HeaderValue;

/// A text that cannot be a content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {EXPECTED}")]
pub struct InvalidContentType;

/// What is expected instead.
pub(crate) const EXPECTED: &str = "a media type such as `application/json`";

/// Reads a media type: a type, a slash and a subtype, with or without parameters.
pub(crate) fn parse(text: &str) -> Result<HeaderValue, InvalidContentType> {
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let is_media_type = (essence.trim_end_matches(' ').split_once('/'))
        .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    let is_shown = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    if is_media_type && parameters.bytes().all(is_shown) && !text.ends_with(' ') {
        HeaderValue::from_str(text).map_err(|_| InvalidContentType)
    } else {
        Err(InvalidContentType)
    }
}

/// Whether it is a token of HTTP.
fn is_token(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_media_types_are_content_types() {
        for text in [
            "text/plain",
            "application/cloudevents+json",
            "application/vnd.example.v1+json ; charset=utf-8",
            "text/plain; charset=utf-8",
            "multipart/form-data; boundary=\"a b\"",
        ] {
            assert_eq!(parse(text).unwrap(), text);
        }
        for text in [
            "",
            " ",
            "json",
            "/json",
            "text/",
            "text/plain/more",
            " text/plain",
            "text/plain ",
            "text/plain; a=b ",
            "text /plain",
            "text/pl\u{e4}in",
            "text/plain; name=\u{e4}",
            "text/plain\n",
            "text/plain; a=\tb",
            "; charset=utf-8",
        ] {
            assert_eq!(parse(text), Err(InvalidContentType), "{text:?}");
        }
    }
}
