use redis::{ErrorKind, RedisError, ServerErrorKind};
use tidings_reconnect::Cause;

use crate::reason::{self, Reply};

/// Why a call to Redis failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is invalid.
    #[error("expected {field} to be {expected}")]
    Invalid {
        /// The setting.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What is wrong with it, if there is more to say.
        source: Option<Cause>,
    },
    /// The server refused the command. The connection stays usable. Other commands of a pipeline may have
    /// been done, unless it is a transaction.
    #[error("the Redis server refused a command: {}", Reply(.0))]
    Refused(Cause<RedisError>),
    /// There is no connection, so nothing was done. The call may be repeated.
    #[error("cannot connect to the Redis server")]
    Unsent(#[source] Cause),
    /// The server is a replica, so nothing was done. The call may be repeated once there is a primary.
    #[error("the Redis server is a replica")]
    NotPrimary,
    /// The connection broke, or the server did not reply in time: the command may have been done or not.
    #[error("the Redis server did not reply")]
    NoReply(#[source] Cause),
    /// The command was done, and the reply is not of the type that was asked for.
    #[error("the Redis server replied something unexpected")]
    Unexpected(#[source] Cause),
}

impl Error {
    /// Whether the command may have been done although the call failed.
    pub fn may_have_been_done(&self) -> bool {
        matches!(self, Self::NoReply(_) | Self::Unexpected(_))
    }

    /// Whether the server has no room in memory, or none on the disk for what is to be written there.
    pub fn is_full(&self) -> bool {
        matches!(self.code(), Some("OOM" | "MISCONF"))
    }

    /// Whether a repeat may succeed: the server cannot be reached, did not reply, is a replica, has fewer
    /// replicas than it needs, has not read its data yet, or runs a script that takes long.
    pub fn is_unavailable(&self) -> bool {
        const PASSING: [ServerErrorKind; 3] = [
            ServerErrorKind::BusyLoading,
            ServerErrorKind::ClusterDown,
            ServerErrorKind::MasterDown,
        ];
        let is_passing = match self.kind() {
            Some(ErrorKind::Server(kind)) => PASSING.contains(&kind),
            _ => false,
        };
        matches!(self, Self::Unsent(_) | Self::NotPrimary | Self::NoReply(_))
            || is_passing
            || self.is_read_only()
            || matches!(self.code(), Some("BUSY" | "NOREPLICAS"))
    }

    /// Whether the server takes no writes: it is a replica, or has become one.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::NotPrimary)
            || self.kind() == Some(ErrorKind::Server(ServerErrorKind::ReadOnly))
    }

    /// Whether the server is away at the moment: nothing listens or replies, it is still loading its data,
    /// or it is a replica. What is wrong with the URL, such as a password, is not that.
    pub fn is_away(&self) -> bool {
        match self {
            Self::NotPrimary | Self::NoReply(_) => true,
            Self::Unsent(cause) => reason::is_away(cause),
            Self::Invalid { .. } | Self::Refused(_) | Self::Unexpected(_) => false,
        }
    }

    /// The first word of a refusal.
    fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(error) => error.code(),
            _ => None,
        }
    }

    /// The kind of a refusal.
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Refused(error) => Some(error.kind()),
            _ => None,
        }
    }
}

impl From<RedisError> for Error {
    /// The outcome of a command on a connection. Only a reply of the server is a refusal; after anything
    /// else the outcome is unknown.
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension => Self::Refused(error.into()),
            _ => Self::NoReply(reason::of_silence(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::io;

    use super::*;

    #[test]
    fn a_cause_can_be_downcast() {
        let error = || io::Error::other("away");
        for failed in [
            Error::Invalid {
                field: "url",
                expected: "readable",
                source: Some(error().into()),
            },
            Error::Unsent(error().into()),
            Error::NoReply(error().into()),
            Error::Unexpected(error().into()),
        ] {
            let cause = failed.source().expect("it has a cause");
            assert!(cause.downcast_ref::<io::Error>().is_some(), "{failed:?}");
        }
    }

    #[test]
    fn regression_a_command_whose_reply_is_not_understood_may_have_been_done() {
        let unexpected = Error::Unexpected(io::Error::other("no number").into());
        assert!(unexpected.may_have_been_done());
    }

    #[test]
    fn a_server_that_cannot_write_is_full_or_unavailable() {
        let refusal = |code: &str| {
            let refusal = redis::make_extension_error(code.to_owned(), None);
            let refusal = Error::from(refusal);
            (refusal.is_full(), refusal.is_unavailable())
        };
        assert_eq!(refusal("OOM"), (true, false));
        assert_eq!(refusal("MISCONF"), (true, false));
        assert_eq!(refusal("NOREPLICAS"), (false, true));
        assert_eq!(refusal("BUSY"), (false, true));
        assert_eq!(refusal("OTHER"), (false, false));
        for kind in [
            ServerErrorKind::BusyLoading,
            ServerErrorKind::ClusterDown,
            ServerErrorKind::MasterDown,
            ServerErrorKind::ReadOnly,
        ] {
            let refusal = RedisError::from((ErrorKind::Server(kind), "refused"));
            assert!(Error::from(refusal).is_unavailable(), "{kind:?}");
        }
    }
}
