//! A request that was not signed does not pass a verifier, and does not make it panic.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use tidings::signing::{PublicKey, Secret, TimestampedVerifier, Verifier};

const NAMES: [&str; 5] = [
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "x-webhook-timestamp",
    "x-webhook-signature",
];

// The first line is the body, each further one a header: the digit of its name, and its value.
fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|byte| *byte == b'\n');
    let body = lines.next().unwrap_or_default();
    let mut headers = HeaderMap::new();
    for line in lines.take(20) {
        let Some((digit, value)) = line.split_first() else {
            continue;
        };
        let name = NAMES[usize::from(*digit) % NAMES.len()];
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    let secret = Secret::from_bytes([7; 32]).expect("32 bytes are enough");
    let public = PublicKey::parse("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=");
    let standard = Verifier::new(secret).with_public_key(public.expect("a published key"));
    let timestamped = TimestampedVerifier::new("key").expect("not empty");
    for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        assert!(standard.verify(&headers, body, now).is_err());
        assert!(timestamped.verify(&headers, body, now).is_err());
    }
});
