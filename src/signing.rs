//! Signatures that let a receiver know who sent a request, and when.
//!
//! | scheme | headers | signed bytes | signature |
//! |---|---|---|---|
//! | [Standard Webhooks] | `webhook-id`, `webhook-timestamp`, `webhook-signature` | `id.timestamp.body` | `v1,` and base64, several separated by spaces |
//! | timestamped | two headers of any name | `timestamp.body` | `sha256=` and hexadecimal digits |
//! | [custom](Signer::custom) | of any names | anything | what a function returns |
//!
//! The first two are HMAC-SHA256 over the exact bytes of the body, with a timestamp in whole Unix seconds
//! that is taken for each attempt, so that a recorded request is worth nothing after a few minutes.
//!
//! Standard Webhooks has a second version, `v1a,` and base64: an Ed25519 signature of the same
//! bytes, for receivers that must not hold anything that could sign. The sender has a `PrivateKey`
//! (`whsk_`), receivers its `PublicKey` (`whpk_`). Both versions can stand in one header. It needs
//! the cargo feature `v1a`.
//!
//! The sending side is a [`Signer`], or several at once; the receiving side is a [`Verifier`] or a
//! [`TimestampedVerifier`]. Both sides work on bytes and a time that they are given;
//! only [`Verifier::verify_now`] reads the clock.
//!
//! ```
//! use jiff::Timestamp;
//! use tidings::signing::{Secret, StandardSigner, Verifier};
//!
//! let secret = Secret::generate();
//! let signer = StandardSigner::new([secret.clone()]).unwrap();
//!
//! let mut headers = http::HeaderMap::new();
//! signer.sign("msg_1", Timestamp::now(), b"hello", &mut headers);
//!
//! let verified = Verifier::new(secret).verify(&headers, b"hello", Timestamp::now())?;
//! assert_eq!(verified.id, "msg_1");
//! # Ok::<(), tidings::signing::VerifyError>(())
//! ```
//!
//! [Standard Webhooks]: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

mod custom;
#[cfg(feature = "v1a")]
mod key_pair;
mod secret;
mod standard;
mod timestamped;
mod verify;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use url::Url;

pub use custom::{CustomSigner, SignError, SigningInput};
#[cfg(feature = "v1a")]
pub use key_pair::{InvalidKey, PrivateKey, PublicKey};
pub use secret::{InvalidSecret, Secret};
pub use standard::{
    StandardSigner, Verified, Verifier, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP,
};
pub use timestamped::{TimestampedSigner, TimestampedVerifier};
pub use verify::{DEFAULT_TOLERANCE, VerifyError};

static STANDARD_HEADERS: [HeaderName; 3] = [WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE];

/// How the requests to an endpoint are signed. An endpoint can have several.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Signer {
    /// By Standard Webhooks.
    Standard(StandardSigner),
    /// By a timestamp header and `sha256=<hex>`.
    Timestamped(TimestampedSigner),
    /// By a function.
    Custom(CustomSigner),
}

impl Signer {
    /// Signs by a function, which returns the values of some headers.
    ///
    /// It is called for each attempt, just before the request is sent, and must not block. If it
    /// fails or panics, nothing is sent, and the attempt fails as
    /// [`Local`](crate::ErrorKind::Local): it is retried, and does not count against the endpoint.
    ///
    /// ```
    /// use http::{HeaderName, HeaderValue};
    /// use tidings::Endpoint;
    /// use tidings::signing::Signer;
    ///
    /// # fn seal(key: &str, content: &[u8]) -> String { String::from("00") }
    /// let name = HeaderName::from_static("x-hub-signature-256");
    /// let github = Signer::custom([name], |input| {
    ///     let signature = seal("the key", input.body);
    ///     Ok([HeaderValue::try_from(format!("sha256={signature}"))?])
    /// });
    /// let endpoint = Endpoint::builder("https://example.com/hooks").signer(github).build()?;
    /// # Ok::<(), tidings::ConfigError>(())
    /// ```
    pub fn custom<const N: usize>(
        names: [HeaderName; N],
        sign: impl Fn(&SigningInput<'_>) -> Result<[HeaderValue; N], SignError> + Send + Sync + 'static,
    ) -> Self {
        Self::Custom(CustomSigner::new(names, sign))
    }

    /// The headers that it sets.
    pub fn header_names(&self) -> &[HeaderName] {
        match self {
            Self::Standard(_) => &STANDARD_HEADERS,
            Self::Timestamped(signer) => signer.header_names(),
            Self::Custom(signer) => signer.header_names(),
        }
    }
}

/// Adds the headers by which some signers sign one attempt, in place of those that are there, but for `webhook-id`, which
/// is there. Signers of the caller do not see those of the others.
pub(crate) fn sign(
    signers: &[Signer],
    id: &str,
    timestamp: Timestamp,
    url: &Url,
    body: &[u8],
    headers: &mut HeaderMap,
) -> Result<(), SignError> {
    let mut custom = Vec::new();
    for signer in signers {
        if let Signer::Custom(signer) = signer {
            custom.extend(signer.sign(&SigningInput {
                id,
                timestamp,
                url,
                headers,
                body,
            })?);
        }
    }
    for signer in signers {
        match signer {
            Signer::Standard(signer) => {
                signer.sign_identified(id, timestamp, body, headers);
            }
            Signer::Timestamped(signer) => signer.sign(timestamp, body, headers),
            Signer::Custom(_) => {}
        }
    }
    for (name, value) in custom {
        headers.insert(name, value);
    }
    Ok(())
}

impl From<StandardSigner> for Signer {
    fn from(signer: StandardSigner) -> Self {
        Self::Standard(signer)
    }
}

impl From<TimestampedSigner> for Signer {
    fn from(signer: TimestampedSigner) -> Self {
        Self::Timestamped(signer)
    }
}
