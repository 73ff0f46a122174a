//! Carries a request out once for its idempotency key, and replies to a repeat what it has replied first.
//!
//! Notifications and endpoints are stored in one transaction with their key. What is here is for requests that
//! are not: the key is stored before, and the response afterwards.

use std::sync::Arc;

use tidings_webhooks::encryption::EncryptionKeys;
use tracing::Instrument;

use super::error::ApiError;
use crate::app::SharedApp;
use crate::idempotency::Once;
use crate::storage::Begun;

/// Carries the operation out, unless the request is a repeat, and returns the body of the response.
///
/// Without a key, this is the operation. With one it continues when the caller goes away, so that a repeat finds
/// its end.
pub(super) async fn carry_out(
    app: &SharedApp,
    once: Option<Once>,
    operation: impl Future<Output = Result<String, ApiError>> + Send + 'static,
) -> Result<String, ApiError> {
    let Some(once) = once else {
        return operation.await;
    };
    let of_task = Arc::clone(app);
    let run = async move {
        let requests = &of_task.storage.requests;
        match requests.begin(&once).await? {
            Begun::New => {}
            Begun::Running { left } => return Err(ApiError::request_running(left)),
            Begun::Conflict => return Err(ApiError::idempotency_conflict()),
            Begun::Repeated(kept) => return open(&of_task.encryption, &once, &kept),
        }
        let outcome = operation.await;
        let kept = match &outcome {
            Ok(response) => Some(seal(&of_task.encryption, &once, response)?),
            // A repeat tries again.
            Err(_) => None,
        };
        if let Err(error) = requests.finish(&once, kept).await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(
                error,
                "cannot keep the response of a request with an idempotency key; a repeat is carried out again"
            );
        }
        outcome
    };
    let task = app.tasks.spawn(run.in_current_span());
    task.await
        .unwrap_or_else(|panic| Err(ApiError::internal(&panic)))
}

/// The form in which a response is kept: it may have a secret in it.
pub(super) fn seal(keys: &EncryptionKeys, once: &Once, response: &str) -> Result<String, ApiError> {
    keys.seal(&once.context(), response)
        .map_err(|error| ApiError::internal(&error))
}

/// The response that was kept.
pub(super) fn open(keys: &EncryptionKeys, once: &Once, kept: &str) -> Result<String, ApiError> {
    keys.open(&once.context(), kept).map_err(|error| {
        let error: &dyn std::error::Error = &error;
        tracing::info!(error, "cannot repeat a response that was kept");
        ApiError::response_unreadable()
    })
}

#[cfg(test)]
mod tests {
    use axum::http::header::RETRY_AFTER;
    use axum::response::IntoResponse;
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_repeat_of_a_running_request_waits_as_long_again_and_not_longer_than_it_may_take() {
        // 65: the clock of another instance is ahead.
        for (left, expected) in [
            (65_000, "1"),
            (60_000, "1"),
            (41_001, "19"),
            (30_000, "30"),
            (5001, "6"),
            (1, "1"),
        ] {
            let error = ApiError::request_running(SignedDuration::from_millis(left));
            let response = error.into_response();
            assert_eq!(response.headers()[RETRY_AFTER], expected, "{left}");
        }
    }
}
