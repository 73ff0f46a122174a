use tidings_reconnect::Cause;

/// Why a call to a broker failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The broker was closed, and nothing was done.
    #[error("the broker is closed")]
    Closed,
    /// The server or connection beneath the broker failed, and nothing was done. The call may be repeated.
    #[error("the broker failed")]
    Backend(#[source] Cause),
    /// The broker does not support patterns.
    #[error("the broker does not support patterns")]
    NoPatterns,
    /// The connection broke, or the server did not reply in time, or not in a way that is understood, or the broker was
    /// closed, after the message was handed over: it may have been sent or not. Another attempt may send it twice.
    #[error("the server did not reply, so the outcome is unknown")]
    OutcomeUnknown(#[source] Cause),
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
#[error("the broker was closed meanwhile")]
struct ClosedMeanwhile;

impl Error {
    /// The broker was closed after a message was handed over.
    pub(crate) fn closed_meanwhile() -> Self {
        Self::outcome_unknown(ClosedMeanwhile)
    }

    /// Wraps an error from beneath a broker.
    pub fn backend(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Backend(Cause::new(source))
    }

    /// Wraps the reason why there was no reply after a message was handed over.
    pub fn outcome_unknown(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::OutcomeUnknown(Cause::new(source))
    }

    /// Whether the call may have been done, and the message sent, although it failed.
    pub fn may_have_been_done(&self) -> bool {
        matches!(self, Self::OutcomeUnknown(_))
    }

    /// The word for it in metrics.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Backend(_) => "backend",
            Self::NoPatterns => "no_patterns",
            Self::OutcomeUnknown(_) => "outcome_unknown",
        }
    }
}

#[cfg(feature = "postgres")]
impl From<tidings_postgres::Error> for Error {
    fn from(error: tidings_postgres::Error) -> Self {
        match error {
            unknown if unknown.may_have_been_done() => Self::outcome_unknown(unknown),
            other => Self::backend(other),
        }
    }
}

#[cfg(feature = "redis")]
impl From<tidings_redis::Error> for Error {
    fn from(error: tidings_redis::Error) -> Self {
        match error {
            unknown if unknown.may_have_been_done() => Self::outcome_unknown(unknown),
            other => Self::backend(other),
        }
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
            assert!(Error::from(unknown).may_have_been_done());
        }
        let unsent = Below::Unsent(io::Error::other("away").into());
        assert!(!Error::from(unsent).may_have_been_done());
    }

    #[cfg(feature = "redis")]
    #[test]
    fn what_redis_may_have_done_is_an_unknown_outcome() {
        use tidings_redis::Error as Below;
        let cause = || io::Error::other("away").into();
        for unknown in [Below::NoReply(cause()), Below::Unexpected(cause())] {
            assert!(Error::from(unknown).may_have_been_done());
        }
        assert!(!Error::from(Below::Unsent(cause())).may_have_been_done());
    }

    #[test]
    fn a_cause_can_be_downcast() {
        let error = || io::Error::other("away");
        for failed in [Error::outcome_unknown(error()), Error::backend(error())] {
            let cause = failed.source().expect("it has a cause");
            assert!(cause.downcast_ref::<io::Error>().is_some(), "{failed:?}");
        }
    }
}
