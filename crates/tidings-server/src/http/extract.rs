//! The parts of a request that handlers use. Each refusal has the shape of every other error.

use std::str::FromStr;

use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Path, Request};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Version, header};
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use tidings_notify::UserId;
use tidings_storage::idempotency::{IdempotencyKey, NAME};
use tidings_webhooks::Owner;
use url::form_urlencoded;

use super::body::Body;
use super::error::ApiError;
use super::fields::Fields;
use crate::access::Caller;

/// A named part of the path.
#[derive(Debug)]
pub(crate) struct InPath<T>(pub(crate) T);

/// A value that is a part of the path.
pub(crate) trait PathPart: Sized {
    /// The name of the part in the route.
    const NAME: &'static str;

    fn parse(text: String) -> Result<Self, ApiError>;
}

/// The `{user}` of the path.
impl PathPart for UserId {
    const NAME: &'static str = "user";

    fn parse(text: String) -> Result<Self, ApiError> {
        Self::new(text).map_err(|error| ApiError::invalid(Self::NAME, error.to_string()))
    }
}

/// The `{id}` of the path, as text.
impl PathPart for String {
    const NAME: &'static str = "id";

    fn parse(text: String) -> Result<Self, ApiError> {
        Ok(text)
    }
}

/// Who owns the endpoints of a path: the `{user}` in it, or the operator.
#[derive(Debug)]
pub(crate) struct OwnerInPath(pub(crate) Owner);

impl<S: Send + Sync> FromRequestParts<S> for OwnerInPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let user = part(parts, state, UserId::NAME).await?;
        Ok(Self(match user {
            Some(user) => Owner::User(UserId::parse(user)?),
            None => Owner::Operator,
        }))
    }
}

impl<S: Send + Sync, T: PathPart> FromRequestParts<S> for InPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = part(parts, state, T::NAME).await?;
        T::parse(text.unwrap_or_default()).map(Self)
    }
}

/// A part of the path by its name, if the route has it.
async fn part<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    name: &str,
) -> Result<Option<String>, ApiError> {
    if !is_percent_encoded(raw_part(parts, name).unwrap_or_default()) {
        return Err(ApiError::invalid(name, NOT_PERCENT_ENCODED));
    }
    let all = Path::<Vec<(String, String)>>::from_request_parts(parts, state).await;
    let Path(all) = all.map_err(|rejection| not_text(rejection, name))?;
    let found = all.into_iter().find(|(found, _)| found == name);
    Ok(found.map(|(_, text)| text))
}

const NOT_PERCENT_ENCODED: &str = "expected UTF-8 in percent-encoding";

/// A named part of the path as it was sent.
fn raw_part<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    let route = parts.extensions.get::<MatchedPath>()?.as_str();
    let is_named = |part: &str| {
        let inner = part
            .strip_prefix('{')
            .and_then(|part| part.strip_suffix('}'));
        inner == Some(name)
    };
    let mut parts = route.split('/').zip(parts.uri.path().split('/'));
    parts.find_map(|(part, raw)| is_named(part).then_some(raw))
}

/// Whether each `%` begins the two digits of a byte. The library leaves others as they are, so that
/// one name would have several spellings.
fn is_percent_encoded(raw: &str) -> bool {
    raw.split('%').skip(1).all(|escape| {
        let digits = escape.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// Names the part of the path that is not text.
fn not_text(rejection: PathRejection, wanted: &str) -> ApiError {
    let name = match rejection {
        PathRejection::FailedToDeserializePathParams(error) => match error.into_kind() {
            ErrorKind::InvalidUtf8InPathParam { key } => key,
            _ => wanted.to_owned(),
        },
        _ => wanted.to_owned(),
    };
    ApiError::invalid(name, NOT_PERCENT_ENCODED)
}

/// The parameters of the query, by name. Each must be text.
#[derive(Debug)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        for parameter in query.split('&') {
            let decoded = percent_decode_str(parameter);
            // The library would put a replacement character in place of such bytes.
            if !is_percent_encoded(parameter) || decoded.decode_utf8().is_err() {
                let name = form_urlencoded::parse(parameter.as_bytes()).next();
                let name = name.map_or_else(String::new, |(name, _)| name.into_owned());
                return Err(ApiError::invalid(name, NOT_PERCENT_ENCODED));
            }
        }
        Ok(Self(
            form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        ))
    }
}

impl Parameters {
    /// The parameter's text, if it is given. Given twice, it is refused: one of the two would be ignored.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        let mut found = self.0.iter().filter(|(given, _)| given == name);
        let first = found.next().map(|(_, value)| value.as_str());
        match found.next() {
            None => Ok(first),
            Some(_) => Err(ApiError::invalid(name, GIVEN_TWICE)),
        }
    }

    /// The parsed parameter, if it is given; `expected` is for the error.
    pub(crate) fn parsed<T: FromStr>(
        &self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, ApiError> {
        self.text(name)?
            .map(|text| {
                text.parse()
                    .map_err(|_| ApiError::invalid(name, format!("expected {expected}")))
            })
            .transpose()
    }

    /// The `limit` of a list: 1 to `most`.
    pub(crate) fn limit(&self, default: usize, most: usize) -> Result<usize, ApiError> {
        let expected = format!("a number from 1 to {most}");
        let limit = self.parsed("limit", &expected)?.unwrap_or(default);
        if (1..=most).contains(&limit) {
            Ok(limit)
        } else {
            Err(ApiError::invalid("limit", format!("expected {expected}")))
        }
    }
}

/// The error text for a field, a parameter or a header that is given twice.
pub(crate) const GIVEN_TWICE: &str = "given more than once";

/// Refuses a request that does not name its server, or names it twice: a proxy may have checked the other name
/// ([RFC 9112, section 3.2](https://www.rfc-editor.org/rfc/rfc9112#section-3.2)).
pub(super) fn check_host(request: &Request) -> Result<(), ApiError> {
    const NAME: &str = "Host";
    let expected = |what: &str| Err(ApiError::invalid(NAME, format!("expected {what}")));
    match header_once(request.headers(), NAME)? {
        None if request.version() == Version::HTTP_11 => expected("the header Host"),
        Some(host) if !is_host(host.as_bytes()) => expected("a host, and a port if it has one"),
        _ => Ok(()),
    }
}

/// A client may leave the value empty.
fn is_host(value: &[u8]) -> bool {
    value.is_empty() || (!value.contains(&b'@') && Authority::try_from(value).is_ok())
}

/// Refuses a body in another transfer coding than one `chunked`: what is left of it would be taken for the body, and
/// a proxy may see another end of it, so nothing that follows is read as a request
/// ([RFC 9112, section 6.1](https://www.rfc-editor.org/rfc/rfc9112#section-6.1)).
pub(super) fn check_transfer_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    const NAME: &str = "Transfer-Encoding";
    let refused = match header_once(headers, NAME) {
        Ok(Some(coding)) if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            ApiError::invalid(NAME, "expected chunked")
        }
        Ok(_) => return Ok(()),
        Err(given_twice) => given_twice,
    };
    let close = (header::CONNECTION, HeaderValue::from_static("close"));
    Err(refused.with_headers([close].into_iter().collect()))
}

/// A header, if there is one. Given twice, it is refused: one of the two would be ignored.
pub(crate) fn header_once<'a>(
    headers: &'a HeaderMap,
    name: &'static str,
) -> Result<Option<&'a HeaderValue>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    match values.next() {
        None => Ok(value),
        Some(_) => Err(ApiError::invalid(name, GIVEN_TWICE)),
    }
}

/// The `Idempotency-Key` header, if there is one, as the key of the caller.
#[derive(Debug)]
pub(crate) struct SentKey(pub(crate) Option<IdempotencyKey>);

impl<S: Send + Sync> FromRequestParts<S> for SentKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let key = sent_idempotency_key(&parts.headers)?;
        // Every route on which a key has an effect has a caller.
        let namespace = parts.extensions.get().map(Caller::namespace);
        let namespace = namespace.unwrap_or_default();
        Ok(Self(key.map(|key| key.within(&namespace))))
    }
}

fn sent_idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(value) = header_once(headers, NAME)? else {
        return Ok(None);
    };
    value
        .to_str()
        .ok()
        .and_then(IdempotencyKey::parse)
        .map(Some)
        .ok_or_else(|| {
            ApiError::invalid(
                NAME,
                "expected 1 to 255 visible ASCII characters, bare or as a quoted string",
            )
        })
}

/// Refuses the `Idempotency-Key` header where it has no effect: a caller that relies on it would do
/// something twice.
#[derive(Debug)]
pub(crate) struct NoIdempotencyKey;

impl<S: Send + Sync> FromRequestParts<S> for NoIdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        match sent_idempotency_key(&parts.headers)? {
            None => Ok(Self),
            Some(_) => Err(ApiError::invalid(NAME, "not supported by this route")),
        }
    }
}

/// Refuses a body with fields where none has an effect. Many clients send `{}` or `null` with each POST.
#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct NoFields {}

impl<S: Send + Sync> FromRequest<S> for NoFields {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let Body(body) = Body::from_request(request, state).await?;
        Fields::parse_optional(&body)?.allow(|_| false, Vec::new)?;
        Ok(Self {})
    }
}
