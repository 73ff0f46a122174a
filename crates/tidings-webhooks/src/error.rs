use std::borrow::Cow;
use std::error::Error as StdError;

use tidings::{BlockedAddress, ConfigError};
use tidings_reconnect::Cause;

use crate::encryption::SealError;

/// Why a [`Store`](crate::Store) could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store was closed.
    #[error("the webhook store is closed")]
    Closed,
    /// The store has no room left, and nothing was done. Reads continue; writes succeed again once there is room.
    #[error("the webhook store is full")]
    Full(#[source] Cause),
    /// The store cannot be used at present: its file is locked, its disk fails, or its server cannot
    /// be reached. Nothing was done. The call may be repeated.
    #[error("the webhook store is not available")]
    Unavailable(#[source] Cause),
    /// The server of the store did not reply, or what it replied cannot be read: it may have done what it was asked or
    /// not. In a transaction of the caller's own nothing was done, because it must not be committed any more.
    #[error("the webhook store did not reply, so the outcome is unknown")]
    OutcomeUnknown(#[source] Cause),
    /// The owner has as many endpoints as are allowed.
    #[error("expected at most {limit} endpoints")]
    TooManyEndpoints {
        /// The limit that the caller gave.
        limit: usize,
    },
    /// The backend failed.
    #[error("the webhook store failed")]
    Backend(#[source] Cause),
}

impl StoreError {
    /// Wraps the failure of a backend.
    pub fn backend(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Backend(Cause::new(source))
    }

    /// Whether the call may have been done although it failed.
    pub fn may_have_been_done(&self) -> bool {
        matches!(self, Self::OutcomeUnknown(_))
    }
}

#[cfg(feature = "postgres")]
impl From<tidings_postgres::Error> for StoreError {
    fn from(error: tidings_postgres::Error) -> Self {
        match error {
            tidings_postgres::Error::Closed => Self::Closed,
            unknown if unknown.may_have_been_done() => Self::OutcomeUnknown(unknown.into()),
            full if full.is_full() => Self::Full(full.into()),
            trouble if trouble.is_unavailable() => Self::Unavailable(trouble.into()),
            other => Self::backend(other),
        }
    }
}

#[cfg(feature = "sqlite")]
impl From<tidings_sqlite::Error> for StoreError {
    fn from(error: tidings_sqlite::Error) -> Self {
        match error {
            tidings_sqlite::Error::Closed => Self::Closed,
            full if full.is_full() => Self::Full(full.into()),
            trouble if trouble.is_unavailable() => Self::Unavailable(trouble.into()),
            other => Self::backend(other),
        }
    }
}

#[cfg(feature = "sqlite")]
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        tidings_sqlite::Error::from(error).into()
    }
}

/// Why [`Webhooks`](crate::Webhooks) could not do what they were asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed, or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stream of accepted events failed.
    #[error(transparent)]
    Stream(#[from] tidings_stream::Error),
    /// A setting cannot be used.
    #[error("`{field}`: expected {expected}")]
    InvalidSetting {
        /// The setting, by its name in JSON; an entry of an object is `headers.x-team`.
        field: Cow<'static, str>,
        /// What it has to be.
        expected: String,
    },
    /// The URL of an endpoint leads to where the [sender](crate::Options::with_sender) must not send.
    #[error("`url`: expected a URL that may be called, but {0}")]
    BlockedUrl(#[from] BlockedAddress),
    /// An endpoint as it is stored cannot be read, so it cannot be changed either. It can be removed.
    #[error("the stored endpoint cannot be read")]
    Unreadable(#[source] Cause),
    /// The secrets of the endpoint cannot be encrypted or decrypted.
    #[error("the secrets of the endpoint cannot be used")]
    Sealed(#[from] SealError),
    /// Others changed the endpoint at the same time, again and again.
    #[error("the endpoint is being changed by others")]
    Contended,
}

impl Error {
    pub(crate) fn invalid(
        field: impl Into<Cow<'static, str>>,
        expected: impl Into<String>,
    ) -> Self {
        Self::InvalidSetting {
            field: field.into(),
            expected: expected.into(),
        }
    }

    /// Whether the call may have been done although it failed.
    pub fn may_have_been_done(&self) -> bool {
        match self {
            Self::Store(error) => error.may_have_been_done(),
            Self::Stream(error) => error.may_have_been_done(),
            _ => false,
        }
    }

    /// The setting that cannot be used, if that is the reason.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::InvalidSetting { field, .. } => Some(field),
            Self::BlockedUrl(_) => Some("url"),
            _ => None,
        }
    }
}

/// The settings of an endpoint are checked by the webhook client.
impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        let field = match error.field() {
            "header" => "headers",
            "timeout" | "first_byte_timeout" => "timeout_ms",
            "delays" => "schedule",
            field => field,
        };
        let text = error.to_string();
        let expected = text
            .split_once("expected ")
            .map_or(&*text, |(_, what)| what);
        Self::invalid(field, expected)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::io;

    use super::*;

    #[cfg(feature = "postgres")]
    #[test]
    fn what_postgres_may_have_done_is_an_unknown_outcome() {
        use tidings_postgres::Error as Below;
        for unknown in [Below::late(), Below::NoRow] {
            assert!(StoreError::from(unknown).may_have_been_done());
        }
        let unsent = Below::Unsent(io::Error::other("away").into());
        assert!(!StoreError::from(unsent).may_have_been_done());
    }

    #[test]
    fn a_cause_can_be_downcast() {
        let error = || io::Error::other("away");
        for failed in [
            StoreError::Full(error().into()).into(),
            StoreError::Unavailable(error().into()).into(),
            StoreError::OutcomeUnknown(error().into()).into(),
            StoreError::backend(error()).into(),
            Error::Unreadable(error().into()),
        ] {
            let cause = failed.source().expect("it has a cause");
            assert!(cause.downcast_ref::<io::Error>().is_some(), "{failed:?}");
        }
    }
}
