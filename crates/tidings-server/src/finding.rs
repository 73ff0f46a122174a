//! What `tidings doctor` finds.

use serde::Serialize;

/// Whether something is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Ok,
    /// It works, and an operator should know of it.
    Warning,
    /// It does not work.
    Error,
}

/// One thing that was looked at, and how it is.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) status: Status,
    pub(crate) check: &'static str,
    pub(crate) message: String,
}

impl Finding {
    pub(crate) fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: Status::Ok,
            check,
            message: message.into(),
        }
    }

    pub(crate) fn warning(check: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: Status::Warning,
            ..Self::ok(check, message)
        }
    }

    pub(crate) fn error(check: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: Status::Error,
            ..Self::ok(check, message)
        }
    }
}
