//! The one place where an error becomes a status and a JSON body.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tidings_notify::StoreError;

use crate::accept::AcceptError;

/// What a caller gets instead of an answer:
/// `{"error":{"code":"…","message":"…","field":"…"}}`.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    description: Description,
    /// Seconds after which a repeat may succeed.
    retry_after: Option<u16>,
}

/// An error in words: for programs, for people, and the field that it is about.
#[derive(Debug, Serialize)]
pub(crate) struct Description {
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

/// How soon a caller may come back after the server could not store something.
const RETRY_AFTER_SECONDS: u16 = 5;

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            description: Description {
                code,
                message: message.into(),
                field: None,
            },
            retry_after: None,
        }
    }

    /// A field of the body, a parameter of the query or a part of the path is not as it must be.
    pub(crate) fn invalid(field: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_field", expected).about(field)
    }

    pub(crate) fn not_found(field: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message).about(field)
    }

    /// Puts the field below another: `notifications[3]` and `user_id` make
    /// `notifications[3].user_id`.
    pub(crate) fn within(mut self, parent: &str) -> Self {
        let field = match self.description.field.take() {
            Some(field) => format!("{parent}.{field}"),
            None => parent.to_owned(),
        };
        self.about(field)
    }

    /// Names the field.
    fn about(mut self, field: impl Into<String>) -> Self {
        self.description.field = Some(field.into());
        self
    }

    /// The words, for where there is no status.
    pub(crate) fn into_description(self) -> Description {
        self.description
    }

    fn unavailable(code: &'static str, message: &'static str) -> Self {
        Self {
            retry_after: Some(RETRY_AFTER_SECONDS),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
        }
    }

    fn storage_full() -> Self {
        Self::unavailable(
            "storage_full",
            "the server's disk is full; nothing was stored",
        )
    }

    /// Something that is our fault: the cause goes to the log, not to the caller.
    fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = cause, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the server failed; its log says why",
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: Description,
        }
        let body = Body {
            error: self.description,
        };
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<tidings_sqlite::Error> for ApiError {
    fn from(error: tidings_sqlite::Error) -> Self {
        match &error {
            tidings_sqlite::Error::Closed => {
                Self::unavailable("stopping", "the server is stopping")
            }
            error if error.is_full() => Self::storage_full(),
            error => Self::internal(error),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Closed => Self::unavailable("stopping", "the server is stopping"),
            StoreError::Full { .. } => Self::storage_full(),
            error => Self::internal(&error),
        }
    }
}

impl From<tidings_notify::Error> for ApiError {
    fn from(error: tidings_notify::Error) -> Self {
        match error {
            tidings_notify::Error::Store(error) => error.into(),
            tidings_notify::Error::Closed => {
                Self::unavailable("stopping", "the server is stopping")
            }
            error => Self::internal(&error),
        }
    }
}

impl From<serde_json::Error> for ApiError {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(&error)
    }
}

impl From<AcceptError> for ApiError {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::IdempotencyConflict => Self::new(
                StatusCode::CONFLICT,
                "idempotency_conflict",
                "this key was used for a request with another body",
            )
            .about("Idempotency-Key"),
            AcceptError::Database(error) => error.into(),
            AcceptError::Store(error) => error.into(),
            error @ AcceptError::Stream(_) => Self::internal(&error),
        }
    }
}
