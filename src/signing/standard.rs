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

/// The header with the id of the message.
pub const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
/// The header with the time of the attempt, in whole Unix seconds.
pub const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// The header with the signatures.
pub const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The version of the signatures: HMAC-SHA256 with a shared secret.
const V1: &str = "v1";

/// Most signatures that a verifier looks at in one header.
///
/// It bounds what a hostile header costs; a sender in the middle of several rotations sends a few.
const MAX_SIGNATURES: usize = 32;

/// Signs by Standard Webhooks, version `v1`.
#[derive(Debug, Clone)]
pub struct StandardSigner {
    secrets: Arc<[Secret]>,
}

impl StandardSigner {
    /// Signs with every one of some secrets at once, the current one first, so that receivers that
    /// know either the old or the new one accept. `None` when there is no secret.
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Option<Self> {
        let secrets: Arc<[Secret]> = secrets.into_iter().collect();
        (!secrets.is_empty()).then_some(Self { secrets })
    }

    /// The value of `webhook-signature` for a message, sent at a time.
    pub fn signature(&self, id: &str, now: Timestamp, body: &[u8]) -> String {
        let timestamp = now.as_second().to_string();
        let mut signatures = String::with_capacity(self.secrets.len() * 48);
        for secret in self.secrets.iter() {
            if !signatures.is_empty() {
                signatures.push(' ');
            }
            signatures.push_str(V1);
            signatures.push(',');
            let signature = signature(secret, id, &timestamp, body);
            BASE64.encode_string(signature, &mut signatures);
        }
        signatures
    }

    /// Sets the three headers.
    ///
    /// An id that cannot be a header's value is left out; a [`Message`](crate::Message) has none
    /// such.
    #[expect(clippy::missing_panics_doc, reason = "it cannot happen, and says why")]
    pub fn sign(&self, id: &str, now: Timestamp, body: &[u8], headers: &mut HeaderMap) {
        if let Ok(id) = HeaderValue::from_str(id) {
            headers.insert(WEBHOOK_ID, id);
        }
        headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(now.as_second()));
        let signature = HeaderValue::try_from(self.signature(id, now, body))
            .expect("base64, commas and spaces are visible ASCII");
        headers.insert(WEBHOOK_SIGNATURE, signature);
    }
}

fn signature(secret: &Secret, id: &str, timestamp: &str, body: &[u8]) -> [u8; 32] {
    let content = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
    authenticate(secret.as_bytes(), &content)
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
/// let verified = Verifier::new(secret).verify(&headers, body, jiff::Timestamp::now())?;
/// println!("{} is genuine; drop it if this id was seen before", verified.id);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Verifier {
    secrets: Vec<Secret>,
    tolerance: Duration,
}

/// What a [`Verifier`] learned from a genuine request.
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
            tolerance: DEFAULT_TOLERANCE,
        }
    }

    /// Accepts what is signed with another secret too, for the time of a rotation.
    pub fn with_secret(mut self, secret: Secret) -> Self {
        self.secrets.push(secret);
        self
    }

    /// Sets how far the timestamp may be from now on either side, in whole seconds. A request of
    /// exactly that age passes.
    pub fn with_tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Checks the headers of a request against the exact bytes of its body.
    ///
    /// Signatures of versions other than `v1` are skipped. The time it takes does not tell how
    /// much of a signature was right. Of a header with more than 32 signatures the first 32 count.
    ///
    /// # Errors
    ///
    /// Every [`VerifyError`]. The timestamp is looked at before the signature.
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
        for candidate in signatures.split(' ').take(MAX_SIGNATURES) {
            let Some((V1, encoded)) = candidate.split_once(',') else {
                continue;
            };
            let Ok(candidate) = BASE64.decode(encoded) else {
                continue;
            };
            for expected in &expected {
                matches |= expected.as_slice().ct_eq(&candidate);
            }
        }
        if bool::from(matches) {
            Ok(Verified { id, timestamp })
        } else {
            Err(VerifyError::NoMatch)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W";
    const NOW: i64 = 1_674_087_231;
    const NEW: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const OLD: &str = "whsec_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
    const BODY: &str = r#"{"type":"contact.created","timestamp":"2022-11-03T20:26:10.344522Z","data":{"id":"1f81eb52-5198-4599-803e-771906343485"}}"#;

    fn secret(text: &str) -> Secret {
        Secret::parse(text).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn signed(secrets: &[&str], body: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let signer = StandardSigner::new(secrets.iter().map(|text| secret(text))).unwrap();
        signer.sign(ID, at(NOW), body, &mut headers);
        headers
    }

    #[test]
    fn the_published_vectors_hold() {
        for (key, id, timestamp, body, expected) in [
            (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                r#"{"test": 2432232314}"#,
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
            (
                "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553,
                r#"{"email":"test@example.com","username":"test_user"}"#,
                "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            ),
            (
                NEW,
                ID,
                NOW,
                "",
                "v1,ET/52+LuqQDyNkDsD8ylJcB7/dWj/MMfGFzSP9D5S+o=",
            ),
            (
                NEW,
                ID,
                NOW,
                r#"{"n":"é✓"}"#,
                "v1,jwxHZhfs53ITZXFR7tv9Tk63tH+v3EQjUBDOsYoeDng=",
            ),
        ] {
            let signer = StandardSigner::new([secret(key)]).unwrap();
            assert_eq!(
                signer.signature(id, at(timestamp), body.as_bytes()),
                expected
            );
        }
    }

    #[test]
    fn during_a_rotation_the_current_secret_signs_first_and_either_is_accepted() {
        let headers = signed(&[NEW, OLD], BODY.as_bytes());
        assert_eq!(
            headers[WEBHOOK_SIGNATURE],
            "v1,4PMU5Dl90B4kgwxDpwuMZ/cnZ5ztf+Y+kviYQD66rJg= v1,5CyhuKt3yZ7+PZSJKIkwyhMQZvRQ11nPoA9y5B34upY=",
        );
        for key in [NEW, OLD] {
            let verified = Verifier::new(secret(key)).verify(&headers, BODY.as_bytes(), at(NOW));
            assert_eq!(verified.unwrap().id, ID);
        }
        let receiver = Verifier::new(secret(NEW)).with_secret(secret(OLD));
        let headers = signed(&[OLD], BODY.as_bytes());
        assert!(receiver.verify(&headers, BODY.as_bytes(), at(NOW)).is_ok());
    }

    #[test]
    fn the_tolerance_is_inclusive_on_both_sides() {
        let headers = signed(&[NEW], b"x");
        let verifier = Verifier::new(secret(NEW));
        let answer = |seconds| verifier.verify(&headers, b"x", at(seconds)).map(drop);
        assert_eq!(answer(NOW + 300), Ok(()));
        assert_eq!(answer(NOW - 300), Ok(()));
        assert_eq!(answer(NOW + 301), Err(VerifyError::TooOld));
        assert_eq!(answer(NOW - 301), Err(VerifyError::TooNew));
        let verifier = verifier.with_tolerance(Duration::MAX);
        assert!(verifier.verify(&headers, b"x", Timestamp::MAX).is_ok());
    }

    #[test]
    fn headers_that_are_missing_repeated_or_malformed_are_told_apart() {
        let verifier = Verifier::new(secret(NEW));
        let whole = signed(&[NEW], b"x");
        let verify = |headers: &HeaderMap| verifier.verify(headers, b"x", at(NOW)).map(drop);
        for (name, label) in [
            (WEBHOOK_ID, "webhook-id"),
            (WEBHOOK_TIMESTAMP, "webhook-timestamp"),
            (WEBHOOK_SIGNATURE, "webhook-signature"),
        ] {
            let mut headers = whole.clone();
            headers.append(&name, whole[&name].clone());
            assert_eq!(verify(&headers), Err(VerifyError::MalformedHeader(label)));
            headers.remove(&name);
            assert_eq!(verify(&headers), Err(VerifyError::MissingHeader(label)));
        }
        for timestamp in [
            "",
            "+1674087231",
            "-1",
            "1e9",
            "1674087231.5",
            "99999999999999999999",
        ] {
            let mut headers = whole.clone();
            headers.insert(WEBHOOK_TIMESTAMP, timestamp.parse().unwrap());
            let expected = VerifyError::MalformedHeader("webhook-timestamp");
            assert_eq!(verify(&headers), Err(expected), "{timestamp}");
        }
        let mut headers = whole.clone();
        headers.insert(WEBHOOK_TIMESTAMP, i64::MAX.into());
        let expected = VerifyError::MalformedHeader("webhook-timestamp");
        assert_eq!(verify(&headers), Err(expected));
    }

    #[test]
    fn unknown_versions_are_skipped_and_never_accepted() {
        let verifier = Verifier::new(secret(NEW));
        let mut headers = signed(&[NEW], b"x");
        let genuine = headers[WEBHOOK_SIGNATURE].to_str().unwrap().to_owned();
        let verify = |headers: &HeaderMap| verifier.verify(headers, b"x", at(NOW)).map(drop);

        let among_others = format!("v1a,AAAA  v9 ,, v1, v1,!! {genuine}");
        headers.insert(WEBHOOK_SIGNATURE, among_others.parse().unwrap());
        assert_eq!(verify(&headers), Ok(()));

        for other in [
            genuine.replace("v1,", "v2,"),
            genuine.replace("v1,", ""),
            String::new(),
        ] {
            headers.insert(WEBHOOK_SIGNATURE, other.parse().unwrap());
            assert_eq!(verify(&headers), Err(VerifyError::NoMatch), "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_is_signed_verifies_and_any_changed_byte_does_not(
            body in prop::collection::vec(any::<u8>(), 1..200),
            key in prop::collection::vec(any::<u8>(), 24..=64),
            at_byte in any::<prop::sample::Index>(),
            flip in 1_u8..,
        ) {
            let key = Secret::from_bytes(key).unwrap();
            let mut headers = HeaderMap::new();
            StandardSigner::new([key.clone()]).unwrap().sign(ID, at(NOW), &body, &mut headers);
            let verifier = Verifier::new(key);
            prop_assert!(verifier.verify(&headers, &body, at(NOW)).is_ok());

            let mut changed = body.clone();
            changed[at_byte.index(body.len())] ^= flip;
            prop_assert_eq!(verifier.verify(&headers, &changed, at(NOW)), Err(VerifyError::NoMatch));

            let mut other_id = headers.clone();
            other_id.insert(WEBHOOK_ID, HeaderValue::from_static("msg_other"));
            prop_assert_eq!(verifier.verify(&other_id, &body, at(NOW)), Err(VerifyError::NoMatch));

            let mut later = headers.clone();
            later.insert(WEBHOOK_TIMESTAMP, (NOW + 1).into());
            prop_assert_eq!(verifier.verify(&later, &body, at(NOW)), Err(VerifyError::NoMatch));
        }

        #[test]
        fn mangled_headers_never_panic_and_never_pass(
            id in prop::collection::vec(any::<u8>(), 0..40),
            timestamp in prop::collection::vec(any::<u8>(), 0..30),
            signature in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in [(WEBHOOK_ID, id), (WEBHOOK_TIMESTAMP, timestamp), (WEBHOOK_SIGNATURE, signature)] {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.insert(name, value);
                }
            }
            prop_assert!(Verifier::new(secret(NEW)).verify(&headers, b"x", at(NOW)).is_err());
        }
    }
}
