use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hmac::Mac;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::verify::{authenticate, check_timestamp, single};
use super::{DEFAULT_TOLERANCE, InvalidSecret, VerifyError};

const PREFIX: &str = "sha256=";

/// Signs with a timestamp in one header and `sha256=<hex>` over `timestamp.body` in another.
///
/// The id of the message is not signed by this scheme. The headers are
/// `x-webhook-timestamp` and `x-webhook-signature` unless
/// [`with_headers`](Self::with_headers) names others.
#[derive(Debug, Clone)]
#[must_use]
pub struct TimestampedSigner(Scheme);

impl TimestampedSigner {
    /// Signs with a key: the bytes of any text that is not empty.
    ///
    /// # Errors
    ///
    /// [`InvalidSecret::Empty`].
    pub fn new(key: impl Into<Vec<u8>>) -> Result<Self, InvalidSecret> {
        Scheme::new(key.into()).map(Self)
    }

    /// Names the headers.
    pub fn with_headers(mut self, timestamp: HeaderName, signature: HeaderName) -> Self {
        self.0.names = [timestamp, signature];
        self
    }

    /// Sets the two headers.
    #[expect(clippy::missing_panics_doc, reason = "it cannot happen, and says why")]
    pub fn sign(&self, now: Timestamp, body: &[u8], headers: &mut HeaderMap) {
        let timestamp = now.as_second().to_string();
        let signature = HeaderValue::try_from(self.0.signature(&timestamp, body))
            .expect("hexadecimal digits are visible ASCII");
        let [timestamp_name, signature_name] = &self.0.names;
        headers.insert(timestamp_name, HeaderValue::from(now.as_second()));
        headers.insert(signature_name, signature);
    }

    pub(super) fn header_names(&self) -> &[HeaderName; 2] {
        &self.0.names
    }
}

/// Checks what a [`TimestampedSigner`] signed: the receiving side.
#[derive(Debug, Clone)]
#[must_use]
pub struct TimestampedVerifier {
    scheme: Scheme,
    tolerance: Duration,
}

impl TimestampedVerifier {
    /// Accepts what is signed with a key, at most five minutes away from now on either side.
    ///
    /// # Errors
    ///
    /// [`InvalidSecret::Empty`].
    pub fn new(key: impl Into<Vec<u8>>) -> Result<Self, InvalidSecret> {
        Ok(Self {
            scheme: Scheme::new(key.into())?,
            tolerance: DEFAULT_TOLERANCE,
        })
    }

    /// Names the headers.
    pub fn with_headers(mut self, timestamp: HeaderName, signature: HeaderName) -> Self {
        self.scheme.names = [timestamp, signature];
        self
    }

    /// Sets how far the timestamp may be from now on either side, in whole seconds.
    pub fn with_tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Checks the headers of a request against the exact bytes of its body, and returns when the
    /// attempt was made.
    ///
    /// # Errors
    ///
    /// Every [`VerifyError`]; headers are called `timestamp` and `signature` in them.
    pub fn verify(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Timestamp, VerifyError> {
        let [timestamp_name, signature_name] = &self.scheme.names;
        let sent_at = single(headers, timestamp_name, "timestamp")?;
        let signature = single(headers, signature_name, "signature")?;
        let timestamp = check_timestamp(sent_at, "timestamp", now, self.tolerance)?;
        if !signature.starts_with(PREFIX) {
            return Err(VerifyError::MalformedHeader("signature"));
        }
        let expected = self.scheme.signature(sent_at, body);
        // Hexadecimal digits are compared as text, so that neither decoding nor its failure takes a
        // time that depends on them. Digits in upper case are as good.
        let signature = signature.to_ascii_lowercase();
        if bool::from(expected.as_bytes().ct_eq(signature.as_bytes())) {
            Ok(timestamp)
        } else {
            Err(VerifyError::NoMatch)
        }
    }
}

#[derive(Clone)]
struct Scheme {
    key: Arc<Zeroizing<Vec<u8>>>,
    /// The header of the timestamp and that of the signature.
    names: [HeaderName; 2],
}

impl Scheme {
    fn new(key: Vec<u8>) -> Result<Self, InvalidSecret> {
        if key.is_empty() {
            return Err(InvalidSecret::Empty);
        }
        Ok(Self {
            key: Arc::new(Zeroizing::new(key)),
            names: [
                HeaderName::from_static("x-webhook-timestamp"),
                HeaderName::from_static("x-webhook-signature"),
            ],
        })
    }

    fn signature(&self, timestamp: &str, body: &[u8]) -> String {
        let signature: [u8; 32] = authenticate(&self.key, &[timestamp.as_bytes(), b".", body])
            .finalize()
            .into_bytes()
            .into();
        let mut text = String::with_capacity(PREFIX.len() + 2 * signature.len());
        text.push_str(PREFIX);
        for byte in signature {
            for digit in [byte >> 4, byte & 0xf] {
                text.push(char::from_digit(digit.into(), 16).unwrap_or_default());
            }
        }
        text
    }
}

impl fmt::Debug for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheme")
            .field("key", &"[redacted]")
            .field("names", &self.names)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: i64 = 1_674_087_231;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn signed(body: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        TimestampedSigner::new("key")
            .unwrap()
            .sign(at(NOW), body, &mut headers);
        headers
    }

    #[test]
    fn a_vector_made_with_openssl_holds() {
        // printf '1674087231.{"n":1}' | openssl dgst -sha256 -hmac key
        assert_eq!(
            signed(br#"{"n":1}"#)["x-webhook-signature"],
            "sha256=75c394f841e2ecf5b37a3caa42586e56a38f754c2c27adcde9a75dd0ae0ef2a0",
        );
    }

    #[test]
    fn an_empty_key_is_refused_on_both_sides() {
        let refused = Some(InvalidSecret::Empty);
        assert_eq!(TimestampedSigner::new("").err(), refused);
        assert_eq!(TimestampedVerifier::new("").err(), refused);
    }

    #[test]
    fn the_headers_can_be_named() {
        let names = || {
            (
                HeaderName::from_static("x-time"),
                HeaderName::from_static("x-mac"),
            )
        };
        let (timestamp, signature) = names();
        let signer = TimestampedSigner::new("key").unwrap();
        let mut headers = HeaderMap::new();
        signer
            .with_headers(timestamp, signature)
            .sign(at(NOW), b"x", &mut headers);
        let (timestamp, signature) = names();
        let verifier = TimestampedVerifier::new("key").unwrap();
        let verifier = verifier.with_headers(timestamp, signature);
        assert_eq!(verifier.verify(&headers, b"x", at(NOW)), Ok(at(NOW)));
    }

    #[test]
    fn failures_are_distinguished() {
        let verifier = TimestampedVerifier::new("key").unwrap();
        let whole = signed(b"x");
        let verify = |headers: &HeaderMap, now| verifier.verify(headers, b"x", at(now)).map(drop);
        assert_eq!(verify(&whole, NOW + 300), Ok(()));
        assert_eq!(verify(&whole, NOW + 301), Err(VerifyError::TooOld));
        assert_eq!(verify(&whole, NOW - 301), Err(VerifyError::TooNew));
        for (signature, reason) in [
            ("sha1=00", VerifyError::MalformedHeader("signature")),
            ("", VerifyError::MalformedHeader("signature")),
            ("sha256=", VerifyError::NoMatch),
            ("sha256=00", VerifyError::NoMatch),
        ] {
            let mut headers = whole.clone();
            headers.insert("x-webhook-signature", signature.parse().unwrap());
            assert_eq!(verify(&headers, NOW), Err(reason), "{signature}");
        }
        let missing = VerifyError::MissingHeader("timestamp");
        assert_eq!(verify(&HeaderMap::new(), NOW), Err(missing));
        let other = TimestampedVerifier::new("other").unwrap();
        assert_eq!(
            other.verify(&whole, b"x", at(NOW)),
            Err(VerifyError::NoMatch)
        );
    }

    proptest! {
        #[test]
        fn what_is_signed_verifies_and_any_changed_byte_does_not(
            body in prop::collection::vec(any::<u8>(), 1..200),
            at_byte in any::<prop::sample::Index>(),
            flip in 1_u8..,
        ) {
            let verifier = TimestampedVerifier::new("key").unwrap();
            let headers = signed(&body);
            prop_assert_eq!(verifier.verify(&headers, &body, at(NOW)), Ok(at(NOW)));
            let mut changed = body.clone();
            changed[at_byte.index(body.len())] ^= flip;
            prop_assert_eq!(verifier.verify(&headers, &changed, at(NOW)), Err(VerifyError::NoMatch));
        }

        #[test]
        fn mangled_headers_never_panic_and_never_pass(
            timestamp in prop::collection::vec(any::<u8>(), 0..30),
            signature in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in [("x-webhook-timestamp", timestamp), ("x-webhook-signature", signature)] {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.insert(name, value);
                }
            }
            let verifier = TimestampedVerifier::new("key").unwrap();
            prop_assert!(verifier.verify(&headers, b"x", at(NOW)).is_err());
        }
    }
}
