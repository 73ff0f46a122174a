//! What handlers take from a request, with refusals in the shape of every other error.

use axum::extract::path::ErrorKind;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use serde::de::DeserializeOwned;
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

/// The parameters behind the `?`.
#[derive(Debug)]
pub(crate) struct Parameters<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(ApiError::invalid("query", rejection.body_text())),
        }
    }
}

/// The body as it was sent, within the size limit.
#[derive(Debug)]
pub(crate) struct Body(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        Bytes::from_request(request, state)
            .await
            .map(Self)
            .map_err(|rejection: BytesRejection| {
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
