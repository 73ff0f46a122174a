use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use tidings_notify::{Event, Notifier};

use crate::signing::{TimestampedVerifier, Verifier, VerifyError};

/// The receiving half of an [`InstanceRouter`](super::InstanceRouter): verifies a request, and hands
/// its event to the streams of this instance.
///
/// It belongs to no web framework. Read the body with a limit of your own, and reply 204, or the
/// [status](ReceiveError::status) of the error:
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tidings::router::InstanceReceiver;
///
/// fn handle(receiver: &InstanceReceiver, headers: &HeaderMap, body: &[u8]) -> StatusCode {
///     match receiver.receive(headers, body, jiff::Timestamp::now()) {
///         Ok(_event) => StatusCode::NO_CONTENT,
///         Err(error) => error.status(),
///     }
/// }
/// ```
///
/// A request that is repeated does no harm: streams give each event once.
#[derive(Debug, Clone)]
pub struct InstanceReceiver {
    scheme: Scheme,
    notifier: Notifier,
}

#[derive(Debug, Clone)]
enum Scheme {
    Standard(Verifier),
    Timestamped(TimestampedVerifier),
}

impl InstanceReceiver {
    /// Takes requests that are signed by Standard Webhooks.
    pub fn new(verifier: Verifier, notifier: Notifier) -> Self {
        Self {
            scheme: Scheme::Standard(verifier),
            notifier,
        }
    }

    /// Takes requests that are signed with a timestamp header and `sha256=<hex>`.
    pub fn timestamped(verifier: TimestampedVerifier, notifier: Notifier) -> Self {
        Self {
            scheme: Scheme::Timestamped(verifier),
            notifier,
        }
    }

    /// Verifies a request against the exact bytes of its body, delivers its event, and returns it.
    ///
    /// # Errors
    ///
    /// [`ReceiveError::NotGenuine`] when the signature, the timestamp or a header is not right, and
    /// [`ReceiveError::NotAnEvent`] when a genuine body is no event. Nothing is delivered then.
    pub fn receive(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Event, ReceiveError> {
        match &self.scheme {
            Scheme::Standard(verifier) => {
                verifier.verify(headers, body, now)?;
            }
            Scheme::Timestamped(verifier) => {
                verifier.verify(headers, body, now)?;
            }
        }
        let event: Event = serde_json::from_slice(body)?;
        self.notifier.deliver(std::slice::from_ref(&event));
        Ok(event)
    }
}

/// Why a request delivered nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// It does not come from a holder of the secret, or is too old or too new.
    #[error("the request is not genuine")]
    NotGenuine(#[from] VerifyError),
    /// The body is not an event as JSON.
    #[error("the body is not an event")]
    NotAnEvent(#[from] serde_json::Error),
}

impl ReceiveError {
    /// The status to reply with: 401 or 400.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotGenuine(_) => StatusCode::UNAUTHORIZED,
            Self::NotAnEvent(_) => StatusCode::BAD_REQUEST,
        }
    }
}
