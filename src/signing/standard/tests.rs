#[cfg(feature = "v1a")]
mod v1a;

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
    let result = |seconds| verifier.verify(&headers, b"x", at(seconds)).map(drop);
    assert_eq!(result(NOW + 300), Ok(()));
    assert_eq!(result(NOW - 300), Ok(()));
    assert_eq!(result(NOW + 301), Err(VerifyError::TooOld));
    assert_eq!(result(NOW - 301), Err(VerifyError::TooNew));
    let verifier = verifier.with_tolerance(Duration::MAX);
    assert!(verifier.verify(&headers, b"x", Timestamp::MAX).is_ok());
}

#[test]
fn headers_that_are_missing_repeated_or_malformed_are_distinguished() {
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
    for id in ["", "a.b"] {
        let mut headers = whole.clone();
        headers.insert(WEBHOOK_ID, id.parse().unwrap());
        let expected = VerifyError::MalformedHeader("webhook-id");
        assert_eq!(verify(&headers), Err(expected), "{id:?}");
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
        let verifier = Verifier::new(secret(NEW));
        #[cfg(feature = "v1a")]
        let verifier = verifier.with_public_key(PublicKey::parse(v1a::PUBLIC).unwrap());
        prop_assert!(verifier.verify(&headers, b"x", at(NOW)).is_err());
    }
}
