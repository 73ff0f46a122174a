//! A text is a key or is refused; a key reads back as it was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidings::signing::{PrivateKey, PublicKey, Secret};

fuzz_target!(|text: &str| {
    if let Ok(secret) = Secret::parse(text) {
        let again = Secret::parse(&secret.expose()).expect("it was written by us");
        assert_eq!(*again.expose(), *secret.expose());
    }
    if let Ok(key) = PrivateKey::parse(text) {
        assert_eq!(*key.expose(), text);
    }
    if let Ok(key) = PublicKey::parse(text) {
        assert_eq!(key.to_string(), text);
    }
});
