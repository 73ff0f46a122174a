//! Makes API keys.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use tidings_storage::{Scopes, StoredKey};

/// What every key begins with, so that people and scanners recognise one.
const PREFIX: &str = "tk_";

/// Length of a key: the prefix and 256 random bits.
const LENGTH: usize = PREFIX.len() + 43;

/// How many characters of a key are shown later.
const SHOWN: usize = PREFIX.len() + 4;

/// Whether a text has the form of a key. Of any other, the database need not be asked.
pub(super) fn looks_like_one(text: &str) -> bool {
    text.len() == LENGTH && text.starts_with(PREFIX)
}

/// Makes a key; returns it, and what is stored of it.
pub(crate) fn new_key(
    name: String,
    scopes: Scopes,
    expires_at: Option<Timestamp>,
) -> Result<(String, StoredKey), getrandom::Error> {
    let (mut secret, mut id) = ([0; 32], [0; 8]);
    getrandom::fill(&mut secret)?;
    getrandom::fill(&mut id)?;
    let key = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(secret));
    let stored = StoredKey {
        id: format!("key_{:016x}", u64::from_be_bytes(id)),
        name,
        digest: Sha256::digest(&key).into(),
        prefix: key[..SHOWN].to_owned(),
        scopes,
        created_at: stored_time(Timestamp::now()),
        expires_at: expires_at.map(stored_time),
        last_used_at: None,
    };
    Ok((key, stored))
}

/// Times are stored in microseconds.
fn stored_time(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use tidings_storage::Scope;

    use super::*;

    #[test]
    fn a_key_is_recognised_and_only_its_beginning_is_stored() {
        let scopes = Scopes::new(vec![Scope::Publish]).unwrap();
        let (key, stored) = new_key("shop".to_owned(), scopes.clone(), None).unwrap();
        let (other, _) = new_key("shop".to_owned(), scopes, None).unwrap();
        assert_ne!(key, other);
        assert!(looks_like_one(&key));
        assert!(key.starts_with(&stored.prefix) && stored.prefix.len() == 7);
        assert!(!format!("{stored:?}").contains(&key[SHOWN..]));
        for text in [
            "",
            "tk_",
            &key[1..],
            &format!("{key}x"),
            &key.replace("tk_", "sk_"),
        ] {
            assert!(!looks_like_one(text), "{text}");
        }
    }
}
