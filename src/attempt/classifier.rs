//! What a response, or the lack of one, means for its delivery. Pure functions.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{AttemptError, Response};

/// What one attempt means for its delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// The endpoint accepted the message.
    Delivered,
    /// The cause is transient: another attempt may succeed.
    Retryable,
    /// Another attempt would fail the same way.
    Permanent,
    /// The endpoint says that it no longer exists: it should get no further messages.
    Gone,
}

impl Verdict {
    /// The verdict of the [default classifier](Classifier#impl-Default-for-Classifier) on a status.
    pub fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            200..=299 => Self::Delivered,
            408 | 425 | 429 | 500.. => Self::Retryable,
            410 => Self::Gone,
            _ => Self::Permanent,
        }
    }
}

/// Decides which [`Verdict`] an attempt gets.
///
/// | result | [`default()`](Self::default) | [`standard_webhooks()`](Self::standard_webhooks) |
/// |---|---|---|
/// | 2xx | delivered | delivered |
/// | 410 | gone | gone |
/// | 408, 425, 429, 5xx, and numbers beyond 599 | retryable | retryable |
/// | other 4xx, 3xx, 1xx | permanent | retryable |
/// | an [`ErrorKind`](crate::ErrorKind) that [is retryable](crate::ErrorKind::is_retryable) | retryable | retryable |
/// | other errors | permanent | retryable |
///
/// A redirect is never followed, because that would carry a signed body to an address that was not
/// checked; the attempt keeps its `location`. Numbers beyond 599 count as 500, as [RFC 9110] asks
/// of clients. The verdict also decides what a circuit breaker counts as a failure: retryable
/// attempts, except for those with a local error.
///
/// Set it for each endpoint with [`EndpointBuilder::classifier`](crate::EndpointBuilder::classifier).
///
/// ```
/// use http::StatusCode;
/// use tidings::{Classifier, Response, Verdict};
///
/// // This receiver replies 404 while it is being deployed.
/// let classifier = Classifier::new(|result| match result {
///     Ok(response) if response.status == StatusCode::NOT_FOUND => Verdict::Retryable,
///     result => Classifier::default().classify(result),
/// });
///
/// let verdict = |status| classifier.classify(&Ok(Response::new(status)));
/// assert_eq!(verdict(StatusCode::NOT_FOUND), Verdict::Retryable);
/// assert_eq!(verdict(StatusCode::FORBIDDEN), Verdict::Permanent);
/// ```
///
/// [RFC 9110]: https://www.rfc-editor.org/rfc/rfc9110#section-15
#[derive(Clone, Default)]
pub struct Classifier(Rules);

type Rule = dyn Fn(&Result<Response, AttemptError>) -> Verdict + Send + Sync;

#[derive(Clone, Default)]
enum Rules {
    #[default]
    Default,
    StandardWebhooks,
    Custom(Arc<Rule>),
}

impl Classifier {
    /// Decides by a function. If it panics, the default rules decide, and the panic is logged.
    pub fn new(
        rule: impl Fn(&Result<Response, AttemptError>) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        Self(Rules::Custom(Arc::new(rule)))
    }

    /// Retries everything that is not 2xx, except for 410, as [Standard Webhooks] recommends: what
    /// the receiver's owner can repair is worth another attempt.
    ///
    /// [Standard Webhooks]: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    pub fn standard_webhooks() -> Self {
        Self(Rules::StandardWebhooks)
    }

    /// What a result means.
    pub fn classify(&self, result: &Result<Response, AttemptError>) -> Verdict {
        match &self.0 {
            Rules::Default => by_default(result),
            Rules::StandardWebhooks => match result.as_ref().map(|response| response.status) {
                Ok(status) if status.is_success() => Verdict::Delivered,
                Ok(StatusCode::GONE) => Verdict::Gone,
                _ => Verdict::Retryable,
            },
            Rules::Custom(rule) => {
                catch_unwind(AssertUnwindSafe(|| rule(result))).unwrap_or_else(|_| {
                    tracing::error!("the classifier panicked; the default rules decide");
                    by_default(result)
                })
            }
        }
    }
}

fn by_default(result: &Result<Response, AttemptError>) -> Verdict {
    match result {
        Ok(response) => Verdict::of_status(response.status),
        Err(error) if error.kind().is_retryable() => Verdict::Retryable,
        Err(_) => Verdict::Permanent,
    }
}

impl fmt::Debug for Classifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Rules::Default => "Classifier::default()",
            Rules::StandardWebhooks => "Classifier::standard_webhooks()",
            Rules::Custom(_) => "Classifier::new(..)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn response(code: u16) -> Response {
        Response::new(StatusCode::from_u16(code).unwrap())
    }

    fn failure(kind: ErrorKind) -> Result<Response, AttemptError> {
        Err(AttemptError::new(kind, std::io::Error::other("x")))
    }

    #[test]
    fn every_status_has_its_verdict() {
        for code in 100..1000 {
            let expected = match code {
                200..=299 => Verdict::Delivered,
                408 | 425 | 429 => Verdict::Retryable,
                410 => Verdict::Gone,
                100..=199 | 300..=499 => Verdict::Permanent,
                _ => Verdict::Retryable,
            };
            let verdict = Classifier::default().classify(&Ok(response(code)));
            assert_eq!(verdict, expected, "{code}");
        }
    }

    #[test]
    fn by_standard_webhooks_only_success_and_gone_end_a_delivery() {
        let classifier = Classifier::standard_webhooks();
        for code in 100..1000 {
            let expected = match code {
                200..=299 => Verdict::Delivered,
                410 => Verdict::Gone,
                _ => Verdict::Retryable,
            };
            assert_eq!(classifier.classify(&Ok(response(code))), expected, "{code}");
        }
        for kind in [
            ErrorKind::BlockedAddress,
            ErrorKind::Redirected,
            ErrorKind::Reset,
        ] {
            assert_eq!(classifier.classify(&failure(kind)), Verdict::Retryable);
        }
    }

    #[test]
    fn errors_are_judged_by_their_kind() {
        let classifier = Classifier::default();
        for (kind, verdict) in [
            (ErrorKind::Reset, Verdict::Retryable),
            (ErrorKind::Local, Verdict::Retryable),
            (ErrorKind::BlockedAddress, Verdict::Permanent),
            (ErrorKind::InvalidRequest, Verdict::Permanent),
        ] {
            assert_eq!(classifier.classify(&failure(kind)), verdict, "{kind}");
        }
    }

    #[test]
    fn a_function_that_panics_leaves_the_decision_to_the_default_rules() {
        let classifier = Classifier::new(|result| match result {
            Ok(response) if response.status == 404 => Verdict::Retryable,
            _ => panic!("this is a test"),
        });
        assert_eq!(classifier.classify(&Ok(response(404))), Verdict::Retryable);
        assert_eq!(classifier.classify(&Ok(response(204))), Verdict::Delivered);
    }
}
