use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;

use crate::{Attempt, AttemptError, DeliveryErrorCause, ErrorKind, Phases, Response, Verdict};

/// What is kept of an attempt while its delivery waits for the next one: 16 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttemptSummary {
    /// In microseconds since 1970.
    started_at: i64,
    /// In milliseconds.
    elapsed: u32,
    result: SummarizedResult,
}

#[derive(Debug, Clone, Copy)]
enum SummarizedResult {
    Status(StatusCode),
    Error { kind: ErrorKind, is_ambiguous: bool },
}

impl AttemptSummary {
    pub(super) fn new(attempt: &Attempt) -> Self {
        Self {
            started_at: attempt.started_at.as_microsecond(),
            elapsed: u32::try_from(attempt.elapsed.as_millis()).unwrap_or(u32::MAX),
            result: match &attempt.result {
                Ok(response) => SummarizedResult::Status(response.status),
                Err(error) => SummarizedResult::Error {
                    kind: error.kind(),
                    is_ambiguous: attempt.is_ambiguous(),
                },
            },
        }
    }

    /// Why it failed, as the cause of the end of its delivery.
    pub(super) fn cause(&self) -> DeliveryErrorCause {
        match self.result {
            SummarizedResult::Status(status) => DeliveryErrorCause::Status(status),
            SummarizedResult::Error { kind, is_ambiguous } => {
                DeliveryErrorCause::Transport(error(kind, is_ambiguous))
            }
        }
    }

    /// The attempt without its phases, its body and the source of its error.
    pub(super) fn attempt(&self, number: u32) -> Attempt {
        let result = match self.result {
            SummarizedResult::Status(status) => Ok(Response {
                status,
                retry_after: None,
                location: None,
                body_head: Bytes::new(),
            }),
            SummarizedResult::Error { kind, is_ambiguous } => Err(error(kind, is_ambiguous)),
        };
        Attempt {
            number,
            // It was a time before.
            started_at: Timestamp::from_microsecond(self.started_at).unwrap_or_default(),
            elapsed: Duration::from_millis(self.elapsed.into()),
            phases: Phases::default(),
            // No other attempt is followed by a next one.
            verdict: Verdict::Retryable,
            result,
        }
    }
}

fn error(kind: ErrorKind, is_ambiguous: bool) -> AttemptError {
    AttemptError::new(kind, kind).ambiguous(is_ambiguous)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_small() {
        assert_eq!(size_of::<AttemptSummary>(), 16);
    }
}
