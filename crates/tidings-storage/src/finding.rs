//! What `tidings doctor` finds.

use serde::Serialize;

/// Whether something is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is.
    Ok,
    /// It works, and an operator should know of it.
    Warning,
    /// It does not work.
    Error,
}

/// One thing that was looked at, and how it is.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it is.
    pub status: Status,
    /// What was looked at, in a word.
    pub check: &'static str,
    /// What was found, for an operator.
    pub message: String,
}

impl Finding {
    /// Something that is as it should be.
    pub fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: Status::Ok,
            check,
            message: message.into(),
        }
    }

    /// Something that works, and that an operator should know of.
    pub fn warning(check: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: Status::Warning,
            ..Self::ok(check, message)
        }
    }

    /// Something that does not work.
    pub fn error(check: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: Status::Error,
            ..Self::ok(check, message)
        }
    }
}
