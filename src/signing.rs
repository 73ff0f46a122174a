//! Signatures that let a receiver know who sent a request, and when.
//!
//! | scheme | headers | signed bytes | signature |
//! |---|---|---|---|
//! | [Standard Webhooks] | `webhook-id`, `webhook-timestamp`, `webhook-signature` | `id.timestamp.body` | `v1,` and base64, several separated by spaces |
//! | timestamped | two headers of any name | `timestamp.body` | `sha256=` and hexadecimal digits |
//!
//! Both are HMAC-SHA256 over the exact bytes of the body, with a timestamp in whole Unix seconds
//! that is taken for each attempt, so that a recorded request is worth nothing after a few minutes.
//!
//! Standard Webhooks has a second version, `v1a,` and base64: an Ed25519 signature of the same
//! bytes, for receivers that are to hold nothing that could sign. The sender has a [`PrivateKey`]
//! (`whsk_`), receivers its [`PublicKey`] (`whpk_`). Both versions can stand in one header.
//!
//! The sending side is a [`Signer`]; the receiving side a [`Verifier`] or a
//! [`TimestampedVerifier`]. Both sides work on bytes and a time that they are given: nothing here
//! reads a clock.
//!
//! ```
//! use jiff::Timestamp;
//! use tidings::signing::{Secret, Signer, StandardSigner, Verifier};
//!
//! let secret = Secret::generate();
//! let signer = Signer::from(StandardSigner::new([secret.clone()]).unwrap());
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

mod key_pair;
mod secret;
mod standard;
mod timestamped;
mod verify;

use http::{HeaderMap, HeaderName};
use jiff::Timestamp;

pub use key_pair::{InvalidKey, PrivateKey, PublicKey};
pub use secret::{InvalidSecret, Secret};
pub use standard::{
    StandardSigner, Verified, Verifier, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP,
};
pub use timestamped::{TimestampedSigner, TimestampedVerifier};
pub use verify::{DEFAULT_TOLERANCE, VerifyError};

/// How the requests to one endpoint are signed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Signer {
    /// By Standard Webhooks.
    Standard(StandardSigner),
    /// By a timestamp header and `sha256=<hex>`.
    Timestamped(TimestampedSigner),
}

impl Signer {
    /// Adds the headers of one attempt, replacing those of another.
    pub fn sign(&self, id: &str, now: Timestamp, body: &[u8], headers: &mut HeaderMap) {
        match self {
            Self::Standard(signer) => signer.sign(id, now, body, headers),
            Self::Timestamped(signer) => signer.sign(now, body, headers),
        }
    }

    /// Whether [`sign`](Self::sign) sets a header.
    pub fn sets_header(&self, name: &HeaderName) -> bool {
        match self {
            Self::Standard(_) => [WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE].contains(name),
            Self::Timestamped(signer) => signer.header_names().contains(name),
        }
    }
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
