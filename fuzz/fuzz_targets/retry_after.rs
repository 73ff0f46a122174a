//! Whatever an endpoint says about when to come back, the wait is none or within the cap.
#![no_main]

use http::HeaderValue;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use tidings::{MAX_RETRY_AFTER, parse_retry_after};

fuzz_target!(|data: &[u8]| {
    let Ok(value) = HeaderValue::from_bytes(data) else {
        return;
    };
    for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        let wait = parse_retry_after(&value, now);
        assert!(wait.is_none_or(|wait| wait <= MAX_RETRY_AFTER));
    }
});
