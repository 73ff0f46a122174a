//! The one place where an error becomes a status and a JSON body.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use tidings_notify::StoreError;
use tidings_notify::presence::PresenceError;
use tidings_storage::{StorageError, counted, idempotency, redis};

use crate::outage::Cause;
use crate::wire::code::Code;
use crate::wire::{ErrorBody, ErrorDescription};

/// An error of the server, in the extensions of its response: the id of the request is added to its body.
#[derive(Debug, Clone)]
pub(super) struct Fault(pub(super) ErrorDescription);

impl Fault {
    /// The error of a request that only reads: it has stored nothing, whatever the database has not confirmed.
    pub(super) fn of_read(self) -> Self {
        if self.0.code == Code::OutcomeUnknown {
            Self(ApiError::storage_unavailable().description)
        } else {
            self
        }
    }
}

/// An error as a response: `{"error":{"code":"…","message":"…","field":"…"}}` with its status.
#[derive(Debug)]
pub(crate) struct ApiError {
    description: ErrorDescription,
    /// Seconds after which a repeat may succeed.
    retry_after: Option<u16>,
    /// What is wrong with the database, if that is the reason.
    cause: Option<Cause>,
    /// More headers of the response.
    headers: Option<Box<HeaderMap>>,
}

/// When a caller may repeat a request that the server could not store.
const RETRY_AFTER_SECONDS: u16 = 5;

/// Whole seconds, at least one.
pub(super) fn whole_seconds(wait: Duration) -> u16 {
    wait.as_millis()
        .div_ceil(1000)
        .max(1)
        .try_into()
        .unwrap_or(u16::MAX)
}

impl ApiError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            description: ErrorDescription {
                code,
                message: message.into(),
                field: None,
                request_id: None,
            },
            retry_after: None,
            cause: None,
            headers: None,
        }
    }

    /// Says after how many seconds a repeat may succeed.
    pub(crate) fn retry_after(mut self, seconds: u16) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Gives the response more headers.
    pub(crate) fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.headers = Some(Box::new(headers));
        self
    }

    /// A field of the body, a parameter of the query or a part of the path is not valid.
    pub(crate) fn invalid(field: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::new(Code::InvalidField, expected).about(field)
    }

    /// A field or a parameter that is not among those that are known.
    pub(crate) fn unknown(kind: &'static str, name: impl Into<String>, known: &[&str]) -> Self {
        let known = match known {
            [] => "none".to_owned(),
            known => known.join(", "),
        };
        Self::invalid(name, format!("unknown {kind}; expected {known}"))
    }

    pub(crate) fn not_found(field: &'static str, message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message).about(field)
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
    pub(crate) fn about(mut self, field: impl Into<String>) -> Self {
        self.description.field = Some(field.into());
        self
    }

    /// What is wrong with the database, if that is the reason.
    pub(crate) fn cause(&self) -> Option<&Cause> {
        self.cause.as_ref()
    }

    /// The error without its status, for a frame of a stream.
    pub(crate) fn into_description(self) -> ErrorDescription {
        self.description
    }

    fn unavailable(code: Code, message: &'static str) -> Self {
        Self {
            retry_after: Some(RETRY_AFTER_SECONDS),
            ..Self::new(code, message)
        }
    }

    pub(crate) fn stopping() -> Self {
        Self::unavailable(Code::Stopping, "the server is stopping")
    }

    /// There is no room for a larger body.
    pub(crate) fn busy() -> Self {
        Self::unavailable(
            Code::Busy,
            "too many large bodies arrive at the same time; nothing was stored",
        )
    }

    /// There is no room for a larger response.
    pub(crate) fn too_many_unread() -> Self {
        Self::unavailable(
            Code::Busy,
            "too many large responses were not read by their clients yet; read the others first, or ask for fewer entries",
        )
    }

    /// No token can be verified yet.
    pub(crate) fn no_token_keys() -> Self {
        Self::unavailable(
            Code::TokenKeysUnavailable,
            "the server could not load the keys for tokens (--jwt-jwks)",
        )
    }

    fn storage_unavailable() -> Self {
        Self::unavailable(
            Code::StorageUnavailable,
            "the database of the server is not available; nothing was stored",
        )
    }

    /// The database cannot be written. The request had nothing to store.
    pub(crate) fn not_ready(error: &StorageError) -> Self {
        let (code, message) = match error {
            StorageError::Closed => return Self::stopping(),
            StorageError::Full { .. } => (Code::StorageFull, "the disk of the server is full"),
            StorageError::Unavailable { .. } => (
                Code::StorageUnavailable,
                "the database of the server is not available",
            ),
            _ => (
                Code::NotReady,
                "the database of the server cannot be written",
            ),
        };
        Self::unavailable(code, message).because_of(error)
    }

    /// What is wrong with the database.
    fn because_of(mut self, cause: &(dyn std::error::Error + 'static)) -> Self {
        self.cause = Some(Cause::new(cause));
        self
    }

    /// The idempotency key was used for another request.
    pub(crate) fn idempotency_conflict() -> Self {
        Self::new(
            Code::IdempotencyConflict,
            "this Idempotency-Key was used for a request with another body or to another route",
        )
        .about(idempotency::NAME)
    }

    /// A request with the same idempotency key is being carried out, which takes a moment.
    pub(crate) fn request_running() -> Self {
        let message = "a request with this Idempotency-Key is being carried out";
        Self::new(Code::RequestRunning, message)
            .about(idempotency::NAME)
            .retry_after(1)
    }

    /// The response that was kept for a repeat is lost with its key.
    pub(crate) fn response_unreadable() -> Self {
        let message = "the request was made before, and its response cannot be decrypted with the keys of this \
                       server (--encryption-key); look up what became of it, and do not repeat it";
        Self::new(Code::ResponseUnreadable, message).about(idempotency::NAME)
    }

    /// The response that was kept for a repeat cannot be read with what this caller has sent.
    pub(crate) fn response_of_another_caller() -> Self {
        let message = "the request was made before, and only the API key that it was sent with opens its response, or, on \
                       a server with --dev and without API keys, the server until it stops; find the new key in the \
                       list, revoke it and make another";
        Self::new(Code::ResponseUnreadable, message).about(idempotency::NAME)
    }

    /// The owner has as many endpoints as allowed.
    pub(crate) fn too_many_endpoints(limit: usize) -> Self {
        let message = format!(
            "an owner has at most {} (--max-endpoints); remove one that is no longer used",
            counted(limit, "endpoint")
        );
        Self::new(Code::TooManyEndpoints, message)
    }

    /// There are as many API keys as allowed.
    pub(crate) fn too_many_keys(limit: usize) -> Self {
        Self::new(
            Code::TooManyKeys,
            format!("there are at most {limit} API keys; revoke one that is no longer used"),
        )
    }

    /// There are as many request bins as allowed.
    pub(crate) fn too_many_bins(limit: usize) -> Self {
        Self::new(
            Code::TooManyBins,
            format!("there are at most {limit} request bins; remove one that is no longer used"),
        )
    }

    /// The endpoint takes no deliveries.
    pub(crate) fn endpoint_disabled() -> Self {
        Self::new(
            Code::EndpointDisabled,
            "the endpoint is disabled or removed",
        )
    }

    /// A failure of the server: the cause goes to the log, not to the caller.
    pub(crate) fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = cause, "a request failed, replying 500");
        Self::new(Code::Internal, "the server failed; the cause is in its log")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.description.code.status();
        let fault = status
            .is_server_error()
            .then(|| Fault(self.description.clone()));
        let body = ErrorBody {
            error: self.description,
        };
        let mut response = (status, Json(body)).into_response();
        if let Some(fault) = fault {
            response.extensions_mut().insert(fault);
        }
        if let Some(headers) = self.headers {
            response.headers_mut().extend(*headers);
        }
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(cause);
        }
        response
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Closed => Self::stopping(),
            StorageError::Full { .. } => Self::unavailable(Code::StorageFull,
                "the disk of the server is full; nothing was stored",
            )
            .because_of(&error),
            StorageError::Unavailable { .. } => Self::storage_unavailable().because_of(&error),
            StorageError::Locked => Self::unavailable(Code::Locked,
                "another transaction holds the log of one of the users, or the idempotency key; nothing \
                 was stored",
            ),
            StorageError::OutcomeUnknown { .. } => Self::unavailable(Code::OutcomeUnknown,
                "the database of the server did not confirm the request, which may have been stored or not; \
                 repeat it with the same Idempotency-Key",
            )
            .because_of(&error),
            StorageError::TooSlow => Self::unavailable(Code::TooSlow,
                "the list took longer than the server allows; ask for fewer entries, or try again",
            ),
            StorageError::Failed { .. } => Self::internal(&error),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        StorageError::from(error).into()
    }
}

impl From<tidings_webhooks::Error> for ApiError {
    fn from(error: tidings_webhooks::Error) -> Self {
        use tidings_webhooks::{Error, StoreError};
        match error {
            Error::InvalidSetting { field, expected } => {
                Self::invalid(field, format!("expected {expected}"))
            }
            Error::BlockedUrl(blocked) => Self::invalid(
                "url",
                format!(
                    "expected the URL of a public address, but {blocked}; the server allows private ones with \
                     --webhook-private-addresses"
                ),
            ),
            Error::Store(StoreError::TooManyEndpoints { limit }) => Self::too_many_endpoints(limit),
            Error::Store(error) => StorageError::from(error).into(),
            Error::Contended => Self::unavailable(
                Code::Contended,
                "other requests are changing this endpoint at the same time",
            ),
            error => Self::internal(&error),
        }
    }
}

impl From<PresenceError> for ApiError {
    fn from(error: PresenceError) -> Self {
        match error {
            PresenceError::Closed => Self::stopping(),
            error if redis::is_unavailable(&error) => Self::unavailable(
                Code::PresenceUnavailable,
                "the Redis server, which knows who is online, is not available",
            ),
            error => StorageError::from(error).into(),
        }
    }
}

impl From<tidings_notify::Error> for ApiError {
    fn from(error: tidings_notify::Error) -> Self {
        match error {
            tidings_notify::Error::Store(error) => error.into(),
            tidings_notify::Error::Closed => Self::stopping(),
            error => Self::internal(&error),
        }
    }
}

impl From<serde_json::Error> for ApiError {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(&error)
    }
}
