use std::error::Error as StdError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use url::Url;

/// Why a signer failed.
pub type SignError = Box<dyn StdError + Send + Sync>;

/// What there is to sign: one attempt.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SigningInput<'a> {
    /// The id of the message.
    pub id: &'a str,
    /// When the attempt is made.
    pub timestamp: Timestamp,
    /// Where the request goes.
    pub url: &'a Url,
    /// The headers of the request: those of the endpoint and of the message, and `webhook-id`. Those of the signatures and
    /// of the transport are not among them, nor are the `user-agent` and `accept` of this client.
    pub headers: &'a HeaderMap,
    /// The exact bytes of the body.
    pub body: &'a [u8],
}

type Sign = dyn Fn(&SigningInput<'_>) -> Result<Vec<HeaderValue>, SignError> + Send + Sync;

/// Signs by a function, see [`Signer::custom`](super::Signer::custom).
#[derive(Clone)]
pub struct CustomSigner {
    names: Arc<[HeaderName]>,
    sign: Arc<Sign>,
}

impl CustomSigner {
    pub(super) fn new<const N: usize>(
        names: [HeaderName; N],
        sign: impl Fn(&SigningInput<'_>) -> Result<[HeaderValue; N], SignError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            names: Arc::new(names),
            sign: Arc::new(move |input| sign(input).map(Vec::from)),
        }
    }

    pub(super) fn header_names(&self) -> &[HeaderName] {
        &self.names
    }

    /// The headers of one attempt.
    pub(super) fn sign(
        &self,
        input: &SigningInput<'_>,
    ) -> Result<impl Iterator<Item = (HeaderName, HeaderValue)> + use<>, SignError> {
        let values = catch_unwind(AssertUnwindSafe(|| (self.sign)(input)));
        let values = values.unwrap_or_else(|_| Err(Panicked.into()))?;
        let names = self.names.to_vec();
        Ok(names.into_iter().zip(values))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the signer panicked")]
struct Panicked;

/// Leaves out the function, which may hold keys.
impl fmt::Debug for CustomSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomSigner")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use crate::Endpoint;
    use crate::signing::Signer;

    #[test]
    fn a_header_belongs_to_one_signer_alone() {
        let signer = |name| Signer::custom([HeaderName::from_static(name)], |_| Err("x".into()));
        let builder = || Endpoint::builder("http://a.example/").signer(signer("x-one"));
        builder().signer(signer("x-other")).build().unwrap();
        let error = builder().signer(signer("x-one")).build().unwrap_err();
        assert_eq!(error.field(), "signer");
    }
}
