//! Where a request has what proves who calls.

use std::borrow::Cow;
use std::fmt;

use axum::http::{HeaderMap, HeaderValue, Uri, header};

use crate::header_list::elements;

/// What begins the subprotocol that carries a token.
const SUBPROTOCOL_PREFIX: &str = "tidings.token.";

/// The parameter of the query that carries a token.
pub(crate) const PARAMETER: &str = "token";

/// An API key or a token, as it was sent. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(crate) text: String,
    pub(crate) place: Place,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[redacted] in {:?}", self.place)
    }
}

/// Where a credential was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// `Authorization: Bearer …`, the only one for API keys.
    Header,
    /// `?token=`.
    Query,
    /// The WebSocket subprotocol `tidings.token.…`.
    Subprotocol,
    /// The cookie that the configuration names. A browser sends it without being asked to, also for a page
    /// of another site.
    Cookie,
}

/// Why it is unclear which credential a request has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unclear {
    /// The header is not `Bearer …`.
    Header,
    /// There are several: another server may have checked another one.
    Several,
}

/// Finds an API key: `Authorization: Bearer KEY`.
pub(crate) fn in_header(headers: &HeaderMap) -> Result<Option<Credential>, Unclear> {
    let mut sent = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = sent.next() else {
        return Ok(None);
    };
    if sent.next().is_some() {
        return Err(Unclear::Several);
    }
    let text = bearer(value).ok_or(Unclear::Header)?;
    Ok(Some(Credential::new(text, Place::Header)))
}

/// Finds an API key or a token in any place. A cookie counts only if there is nothing else.
pub(crate) fn anywhere(
    headers: &HeaderMap,
    uri: &Uri,
    cookie: Option<&str>,
) -> Result<Option<Credential>, Unclear> {
    let query = uri.query().unwrap_or_default();
    let in_query = url::form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name == PARAMETER)
        .map(|(_, token)| Credential::new(&token, Place::Query));
    let in_subprotocol = elements(headers, header::SEC_WEBSOCKET_PROTOCOL, b',')
        .filter_map(|protocol| protocol.strip_prefix(SUBPROTOCOL_PREFIX.as_bytes()))
        .map(|token| Credential::new(&String::from_utf8_lossy(token), Place::Subprotocol));
    let mut found = in_header(headers)?
        .into_iter()
        .chain(in_query)
        .chain(in_subprotocol);
    let first = found.next();
    if found.next().is_some() {
        return Err(Unclear::Several);
    }
    match (first, cookie) {
        (None, Some(name)) => in_cookie(headers, name),
        (first, _) => Ok(first),
    }
}

fn in_cookie(headers: &HeaderMap, name: &str) -> Result<Option<Credential>, Unclear> {
    let mut found = elements(headers, header::COOKIE, b';')
        .filter_map(|pair| value_of(pair, name))
        .map(|value| Credential::new(value.trim().trim_matches('"'), Place::Cookie));
    let first = found.next();
    match found.next() {
        None => Ok(first),
        Some(_) => Err(Unclear::Several),
    }
}

/// The value of a cookie, if it has this name. Two of the name are two, also if one of them is no text.
fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let is_wanted = pair[..equals].trim_ascii_end() == name.as_bytes();
    is_wanted.then(|| String::from_utf8_lossy(&pair[equals + 1..]))
}

/// The key in `Bearer KEY`. The scheme has no case, and several spaces may follow it.
fn bearer(value: &HeaderValue) -> Option<&str> {
    let text = value.to_str().ok()?;
    let (scheme, key) = text.split_at_checked("Bearer".len())?;
    let is_bearer = scheme.eq_ignore_ascii_case("Bearer") && key.starts_with(' ');
    is_bearer.then(|| key.trim_start())
}

impl Credential {
    fn new(text: &str, place: Place) -> Self {
        let text = text.to_owned();
        Self { text, place }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::try_from(*value).unwrap());
        }
        headers
    }

    fn found(
        pairs: &[(&'static str, &str)],
        uri: &str,
    ) -> Result<Option<(String, Place)>, Unclear> {
        let found = anywhere(&headers(pairs), &uri.parse().unwrap(), Some("session"))?;
        Ok(found.map(|found| (found.text, found.place)))
    }

    #[test]
    fn the_scheme_has_no_case_and_nothing_else_is_a_key() {
        for (value, key) in [
            ("Bearer abc", Some("abc")),
            ("bearer   abc", Some("abc")),
            ("BEARER abc", Some("abc")),
            ("Bearer ", Some("")),
            ("Bearerabc", None),
            ("Basic abc", None),
            ("abc", None),
        ] {
            let found = in_header(&headers(&[("authorization", value)]));
            let expected = key.map(|key| Some(Credential::new(key, Place::Header)));
            assert_eq!(found, expected.ok_or(Unclear::Header), "{value}");
        }
        let twice = [("authorization", "Bearer a"), ("authorization", "Bearer a")];
        assert_eq!(in_header(&headers(&twice)), Err(Unclear::Several));
    }

    #[test]
    fn a_credential_is_not_shown() {
        let shown = format!("{:?}", Credential::new("a-secret", Place::Query));
        assert_eq!(shown, "[redacted] in Query");
    }

    #[test]
    fn a_token_is_found_in_every_place() {
        let one = |text: &str, place| Ok(Some((text.to_owned(), place)));
        assert_eq!(found(&[], "/x"), Ok(None));
        assert_eq!(
            found(&[("authorization", "Bearer a.b")], "/x"),
            one("a.b", Place::Header)
        );
        assert_eq!(
            found(&[], "/x?since=now&token=a.b"),
            one("a.b", Place::Query)
        );
        assert_eq!(found(&[], "/x?%74oken=a%2Eb"), one("a.b", Place::Query));
        let offered = [("sec-websocket-protocol", "tidings.v1, tidings.token.a.b")];
        assert_eq!(found(&offered, "/x"), one("a.b", Place::Subprotocol));
        let lines = [
            ("sec-websocket-protocol", "tidings.v1"),
            ("sec-websocket-protocol", "tidings.token.a.b"),
        ];
        assert_eq!(found(&lines, "/x"), one("a.b", Place::Subprotocol));
        assert_eq!(
            found(&[("sec-websocket-protocol", "tidings.v1")], "/x"),
            Ok(None)
        );
    }

    #[test]
    fn a_cookie_counts_only_if_there_is_nothing_else() {
        let cookie = ("cookie", "session2=x; session=a.b; other=\"y\"");
        let one = |place| Ok(Some(("a.b".to_owned(), place)));
        assert_eq!(found(&[cookie], "/x"), one(Place::Cookie));
        assert_eq!(
            found(&[("cookie", "session=\"a.b\"")], "/x"),
            one(Place::Cookie)
        );
        assert_eq!(found(&[cookie], "/x?token=a.b"), one(Place::Query));
        assert_eq!(found(&[("cookie", "other=a.b")], "/x"), Ok(None));
        let twice = [("cookie", "session=a.b; session=c.d")];
        assert_eq!(found(&twice, "/x"), Err(Unclear::Several));
        let no_name = anywhere(&headers(&[cookie]), &"/x".parse().unwrap(), None);
        assert_eq!(no_name, Ok(None));
    }

    #[test]
    fn regression_what_is_no_ascii_hides_no_credential_beside_it() {
        let one = |place| Ok(Some(("a.b".to_owned(), place)));
        let map = |name: &'static str, value: &[u8]| {
            HeaderMap::from_iter([(
                name.parse().unwrap(),
                HeaderValue::from_bytes(value).unwrap(),
            )])
        };
        let found = |name, value| {
            let found = anywhere(&map(name, value), &"/x".parse().unwrap(), Some("session"))?;
            Ok(found.map(|found| (found.text, found.place)))
        };
        for cookies in [
            "city=Köln; session=a.b".as_bytes(),
            "session=a.b; city=Köln".as_bytes(),
            b"city=K\xf6ln; session=a.b",
            b"K\xf6ln; session = a.b",
        ] {
            assert_eq!(found("cookie", cookies), one(Place::Cookie));
        }
        assert_eq!(found("cookie", "city=Köln".as_bytes()), Ok(None));
        let twice = b"session=K\xf6ln; session=a.b";
        assert_eq!(found("cookie", twice), Err(Unclear::Several));
        let offered = "Köln, tidings.token.a.b".as_bytes();
        let subprotocol = one(Place::Subprotocol);
        assert_eq!(found("sec-websocket-protocol", offered), subprotocol);
    }

    #[test]
    fn two_credentials_are_refused() {
        assert_eq!(found(&[], "/x?token=a&token=b"), Err(Unclear::Several));
        let both = [("authorization", "Bearer a")];
        assert_eq!(found(&both, "/x?token=a"), Err(Unclear::Several));
        let both = [("authorization", "Basic a")];
        assert_eq!(found(&both, "/x?token=a"), Err(Unclear::Header));
    }
}
