use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::Mac;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use subtle::{Choice, ConstantTimeEq};

use super::verify::{authenticate, check_timestamp, single};
use super::{DEFAULT_TOLERANCE, Secret, VerifyError};
#[cfg(feature = "v1a")]
use super::{PrivateKey, PublicKey};

/// The header with the id of the message.
pub const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
/// The header with the time of the attempt, in whole Unix seconds.
pub const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// The header with the signatures.
pub const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The version of signatures with a shared secret: HMAC-SHA256.
const V1: &str = "v1";

/// How long a signature with a shared secret is in the header, with a space: the version, a comma,
/// and 32 bytes in base64.
const V1_LENGTH: usize = 48;

/// The version of signatures with a key pair: Ed25519.
#[cfg(feature = "v1a")]
const V1A: &str = "v1a";

/// Most signatures that a verifier looks at in one header.
///
/// It bounds what a hostile header costs; a sender in the middle of several rotations sends a few.
const MAX_SIGNATURES: usize = 32;

/// Most signatures of key pairs among them: each costs a hundred times as much as one of a secret.
#[cfg(feature = "v1a")]
const MAX_ASYMMETRIC_SIGNATURES: usize = 8;

/// Signs by Standard Webhooks: version `v1` with secrets, version `v1a` with private keys (feature
/// `v1a`), or both.
#[derive(Debug, Clone)]
#[must_use]
pub struct StandardSigner {
    secrets: Arc<[Secret]>,
    #[cfg(feature = "v1a")]
    private_keys: Arc<[PrivateKey]>,
}

impl StandardSigner {
    /// Signs with several secrets at once, the current one first, so that receivers that know either
    /// the old or the new one accept. Returns `None` if there is no secret.
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Option<Self> {
        let secrets: Arc<[Secret]> = secrets.into_iter().collect();
        (!secrets.is_empty()).then_some(Self {
            secrets,
            #[cfg(feature = "v1a")]
            private_keys: Arc::default(),
        })
    }

    /// Signs only with a key pair.
    #[cfg(feature = "v1a")]
    pub fn from_private_key(key: PrivateKey) -> Self {
        Self {
            secrets: Arc::default(),
            private_keys: Arc::new([key]),
        }
    }

    /// Signs with one more key pair, after everything else. During a rotation add the current one
    /// first.
    #[cfg(feature = "v1a")]
    pub fn with_private_key(mut self, key: PrivateKey) -> Self {
        self.private_keys = (self.private_keys.iter().cloned()).chain([key]).collect();
        self
    }

    /// The value of `webhook-signature` for a message, sent at a time.
    pub fn signature(&self, id: &str, now: Timestamp, body: &[u8]) -> String {
        let timestamp = now.as_second().to_string();
        let mut signatures = String::with_capacity(self.secrets.len() * V1_LENGTH);
        for secret in self.secrets.iter() {
            let signature = signature(secret, id, &timestamp, body);
            push(&mut signatures, V1, &signature);
        }
        #[cfg(feature = "v1a")]
        if !self.private_keys.is_empty() {
            let content = content(id, &timestamp, body).concat();
            for key in self.private_keys.iter() {
                push(&mut signatures, V1A, &key.sign(&content));
            }
        }
        signatures
    }

    /// Sets the three headers.
    ///
    /// An id that cannot be the value of a header is left out; that of a
    /// [`Message`](crate::Message) always can.
    pub fn sign(&self, id: &str, now: Timestamp, body: &[u8], headers: &mut HeaderMap) {
        if let Ok(id) = HeaderValue::from_str(id) {
            headers.insert(WEBHOOK_ID, id);
        }
        self.sign_identified(id, now, body, headers);
    }

    /// Sets the other two headers of a request that has its id.
    pub(super) fn sign_identified(
        &self,
        id: &str,
        now: Timestamp,
        body: &[u8],
        headers: &mut HeaderMap,
    ) {
        headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(now.as_second()));
        let signature = HeaderValue::try_from(self.signature(id, now, body))
            .expect("base64, commas and spaces are visible ASCII");
        headers.insert(WEBHOOK_SIGNATURE, signature);
    }
}

fn push(signatures: &mut String, version: &str, signature: &[u8]) {
    if !signatures.is_empty() {
        signatures.push(' ');
    }
    signatures.push_str(version);
    signatures.push(',');
    BASE64.encode_string(signature, signatures);
}

/// What is signed, in parts.
fn content<'a>(id: &'a str, timestamp: &'a str, body: &'a [u8]) -> [&'a [u8]; 5] {
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body]
}

fn signature(secret: &Secret, id: &str, timestamp: &str, body: &[u8]) -> [u8; 32] {
    authenticate(secret.as_bytes(), &content(id, timestamp, body))
        .finalize()
        .into_bytes()
        .into()
}

/// Checks requests that are signed by Standard Webhooks: the receiving side.
///
/// ```
/// # fn handle(headers: http::HeaderMap, body: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
/// use tidings::signing::{Secret, Verifier};
///
/// let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?;
/// let verified = Verifier::new(secret).verify_now(&headers, body)?;
/// println!("{} is genuine; ignore it if this id was seen before", verified.id);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Verifier {
    secrets: Vec<Secret>,
    #[cfg(feature = "v1a")]
    public_keys: Vec<PublicKey>,
    tolerance: Duration,
}

/// What a genuine request says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified<'a> {
    /// The id of the message. A repeated delivery has the same one.
    pub id: &'a str,
    /// When the attempt was made, by the sender's clock.
    pub timestamp: Timestamp,
}

impl Verifier {
    /// Accepts what is signed with a secret, at most five minutes away from now on either side.
    pub fn new(secret: Secret) -> Self {
        Self {
            secrets: vec![secret],
            #[cfg(feature = "v1a")]
            public_keys: Vec::new(),
            tolerance: DEFAULT_TOLERANCE,
        }
    }

    /// Accepts what is signed with the private half of a key, at most five minutes away from now on
    /// either side.
    #[cfg(feature = "v1a")]
    pub fn from_public_key(key: PublicKey) -> Self {
        Self {
            secrets: Vec::new(),
            public_keys: vec![key],
            tolerance: DEFAULT_TOLERANCE,
        }
    }

    /// Accepts what is signed with another secret too, for the time of a rotation.
    pub fn with_secret(mut self, secret: Secret) -> Self {
        self.secrets.push(secret);
        self
    }

    /// Accepts what is signed with the private half of another key too.
    #[cfg(feature = "v1a")]
    pub fn with_public_key(mut self, key: PublicKey) -> Self {
        self.public_keys.push(key);
        self
    }

    /// Sets how far the timestamp may be from now on either side, in whole seconds. A request of
    /// exactly that age passes.
    pub fn with_tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Checks a request by the clock of the system, see [`verify`](Self::verify).
    ///
    /// # Errors
    ///
    /// As for [`verify`](Self::verify).
    pub fn verify_now<'a>(
        &self,
        headers: &'a HeaderMap,
        body: &[u8],
    ) -> Result<Verified<'a>, VerifyError> {
        self.verify(headers, body, Timestamp::now())
    }

    /// Checks the headers of a request against the exact bytes of its body.
    ///
    /// One signature that matches is enough; unknown versions are skipped. How long it takes does
    /// not depend on how much of a `v1` signature is right. Of a header with more than 32
    /// signatures the first 32 count, and of those of `v1a` the first 8.
    ///
    /// # Errors
    ///
    /// Every [`VerifyError`]. The timestamp is checked before the signature.
    pub fn verify<'a>(
        &self,
        headers: &'a HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Verified<'a>, VerifyError> {
        let id = single(headers, &WEBHOOK_ID, "webhook-id")?;
        if id.is_empty() || id.contains('.') {
            return Err(VerifyError::MalformedHeader("webhook-id"));
        }
        let sent_at = single(headers, &WEBHOOK_TIMESTAMP, "webhook-timestamp")?;
        let signatures = single(headers, &WEBHOOK_SIGNATURE, "webhook-signature")?;
        let timestamp = check_timestamp(sent_at, "webhook-timestamp", now, self.tolerance)?;

        let expected: Vec<[u8; 32]> = self
            .secrets
            .iter()
            .map(|secret| signature(secret, id, sent_at, body))
            .collect();
        let mut matches = Choice::from(0);
        #[cfg(feature = "v1a")]
        let mut asymmetric = Vec::new();
        for candidate in signatures.split(' ').take(MAX_SIGNATURES) {
            let Some((version, encoded)) = candidate.split_once(',') else {
                continue;
            };
            let Ok(candidate) = BASE64.decode(encoded) else {
                continue;
            };
            match version {
                V1 => {
                    for expected in &expected {
                        matches |= expected.as_slice().ct_eq(&candidate);
                    }
                }
                #[cfg(feature = "v1a")]
                V1A if asymmetric.len() < MAX_ASYMMETRIC_SIGNATURES => asymmetric.push(candidate),
                _ => {}
            }
        }
        let is_genuine = bool::from(matches);
        #[cfg(feature = "v1a")]
        let is_genuine = is_genuine || self.matches_public_key(&asymmetric, id, sent_at, body);
        if is_genuine {
            Ok(Verified { id, timestamp })
        } else {
            Err(VerifyError::NoMatch)
        }
    }

    #[cfg(feature = "v1a")]
    fn matches_public_key(&self, signatures: &[Vec<u8>], id: &str, at: &str, body: &[u8]) -> bool {
        let content = content(id, at, body).concat();
        (self.public_keys.iter()).any(|key| {
            let mut signatures = signatures.iter();
            signatures.any(|signature| key.verifies(&content, signature))
        })
    }
}

#[cfg(test)]
mod tests;
