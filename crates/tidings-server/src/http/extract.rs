//! What handlers take from a request, with refusals in the shape of every other error.

use std::convert::Infallible;
use std::str::FromStr;
use std::time::Duration;

use axum::extract::path::ErrorKind;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use tidings_notify::UserId;

use super::error::ApiError;
use crate::idempotency::IdempotencyKey;

/// The `{user}` of the path.
#[derive(Debug)]
pub(crate) struct User(pub(crate) UserId);

impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        #[derive(serde::Deserialize)]
        struct Named {
            user: String,
        }
        let Path(Named { user }) = Path::from_request_parts(parts, state)
            .await
            .map_err(|rejection| path_error(rejection, "user"))?;
        UserId::new(user)
            .map(Self)
            .map_err(|error| ApiError::invalid("user", error.to_string()))
    }
}

/// The `{id}` of the path, as text.
#[derive(Debug)]
pub(crate) struct Id(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        #[derive(serde::Deserialize)]
        struct Named {
            id: String,
        }
        Path::from_request_parts(parts, state)
            .await
            .map(|Path(Named { id })| Self(id))
            .map_err(|rejection| path_error(rejection, "id"))
    }
}

/// Names the part of the path that is not text.
fn path_error(rejection: PathRejection, wanted: &str) -> ApiError {
    let field = match rejection {
        PathRejection::FailedToDeserializePathParams(error) => match error.into_kind() {
            ErrorKind::InvalidUtf8InPathParam { key } => key,
            _ => wanted.to_owned(),
        },
        _ => wanted.to_owned(),
    };
    ApiError::invalid(field, "expected UTF-8 in percent-encoding")
}

/// The parameters behind the `?`, by name. Names that nobody asks for are ignored, as everywhere
/// on the web; of a name that stands twice the first counts.
#[derive(Debug)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(
            url::form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        ))
    }
}

impl Parameters {
    /// The parameter's text, if it is given.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(given, _)| given == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The parameter's value, if it is given; `expected` says what it must be.
    pub(crate) fn parsed<T: FromStr>(
        &self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, ApiError> {
        self.text(name)
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

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The body as it was sent, within the limits of size and time.
#[derive(Debug)]
pub(crate) struct Body(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let body = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state));
        let body = body.await.map_err(|_| {
            ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                "the body did not arrive in time",
            )
        })?;
        body.map(Self).map_err(|rejection: BytesRejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                ApiError::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "body_too_large",
                    "the body is larger than this server takes (--max-body-bytes)",
                )
            } else {
                ApiError::new(
                    StatusCode::BAD_REQUEST,
                    "incomplete_body",
                    "the body did not arrive whole",
                )
            }
        })
    }
}

/// A request to go on as a WebSocket.
#[derive(Debug)]
pub(crate) struct Upgrade(pub(crate) WebSocketUpgrade);

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        WebSocketUpgrade::from_request_parts(parts, state)
            .await
            .map(Self)
            .map_err(|rejection: WebSocketUpgradeRejection| {
                ApiError::new(
                    StatusCode::UPGRADE_REQUIRED,
                    "upgrade_required",
                    rejection.body_text(),
                )
            })
    }
}

/// Reads the `Idempotency-Key` header, if there is one.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    value
        .to_str()
        .ok()
        .and_then(IdempotencyKey::new)
        .map(Some)
        .ok_or_else(|| {
            ApiError::invalid(
                "Idempotency-Key",
                "expected 1 to 255 visible ASCII characters",
            )
        })
}
