//! Encryption of what is stored and must stay secret: AES-256-GCM with a random nonce.
//!
//! A sealed text is `sealed:1:<id of the key>:<base64 of nonce, text and tag>`. It is bound to its context, for
//! instance the id of an endpoint, so that it opens nowhere else. What does not begin with `sealed:` was stored
//! without a key, and is read as it is.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;

use crate::EndpointId;
use crate::endpoint::context;

const PREFIX: &str = "sealed:";
const VERSION: &str = "1";

/// Length of a key in bytes.
const KEY_BYTES: usize = 32;

/// The keys by which secrets are encrypted where they are stored: the first encrypts, all decrypt. Without a key,
/// secrets are stored as they are.
///
/// To change the key, put a new one in front: what is stored is encrypted anew in the background after the start
/// of [`Webhooks`](crate::Webhooks). Then the old one can go.
#[derive(Clone, Default)]
pub struct EncryptionKeys(Arc<[EncryptionKey]>);

/// A key that encrypts secrets. It is read from 32 bytes in base64; `Debug` does not show it.
#[derive(Clone)]
pub struct EncryptionKey {
    id: String,
    key: Arc<RandomizedNonceKey>,
}

/// A text that is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 32 random bytes in base64, for instance of `openssl rand -base64 32`")]
pub struct InvalidKey;

/// Why something cannot be encrypted or decrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The key is not there.
    #[error("encrypted with the key {key_id}, which is not configured")]
    NoKey {
        /// The id of the key.
        key_id: String,
    },
    /// The text is not what was encrypted, or is of another context.
    #[error("the stored text was changed, or belongs to something else")]
    Changed,
    /// The text is of another version, or damaged.
    #[error("encrypted in an unknown form")]
    UnknownForm,
    /// The system has no random numbers.
    #[error("cannot encrypt")]
    Failed,
}

impl EncryptionKeys {
    /// The first key encrypts, all decrypt.
    pub fn new(keys: impl IntoIterator<Item = EncryptionKey>) -> Self {
        Self(keys.into_iter().collect())
    }

    /// Whether secrets are stored as they are.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Encrypts a text for a context. Without a key, returns it as it is.
    ///
    /// # Errors
    ///
    /// [`SealError::Failed`].
    pub fn seal(&self, context: &str, text: &str) -> Result<String, SealError> {
        let Some(key) = self.0.first() else {
            return Ok(text.to_owned());
        };
        let mut sealed = text.as_bytes().to_vec();
        let context = Aad::from(context.as_bytes());
        let nonce = key.key.seal_in_place_append_tag(context, &mut sealed);
        let nonce = nonce.map_err(|_| SealError::Failed)?;
        let bytes = [nonce.as_ref().as_slice(), &sealed].concat();
        let text = BASE64_STANDARD_NO_PAD.encode(bytes);
        Ok(format!("{PREFIX}{VERSION}:{}:{text}", key.id))
    }

    /// Decrypts what [`seal`](Self::seal) has returned for the same context, with these keys or without one.
    ///
    /// # Errors
    ///
    /// [`SealError`] says why not.
    pub fn open(&self, context: &str, stored: &str) -> Result<String, SealError> {
        let Some(sealed) = stored.strip_prefix(PREFIX) else {
            return Ok(stored.to_owned());
        };
        let mut parts = sealed.splitn(3, ':');
        let (Some(VERSION), Some(key_id), Some(text)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(SealError::UnknownForm);
        };
        let bytes = BASE64_STANDARD_NO_PAD.decode(text);
        let bytes = bytes.map_err(|_| SealError::UnknownForm)?;
        let (nonce, sealed) = bytes
            .split_at_checked(NONCE_LEN)
            .ok_or(SealError::UnknownForm)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::UnknownForm)?;
        let key = self.0.iter().find(|key| key.id == key_id);
        let key = key.ok_or_else(|| SealError::NoKey {
            key_id: key_id.to_owned(),
        })?;
        let mut sealed = sealed.to_vec();
        let context = Aad::from(context.as_bytes());
        let opened = key.key.open_in_place(nonce, context, &mut sealed);
        let opened = opened.map_err(|_| SealError::Changed)?;
        String::from_utf8(opened.to_vec()).map_err(|_| SealError::Changed)
    }

    /// Decrypts what a store keeps of the secrets of an endpoint.
    ///
    /// # Errors
    ///
    /// [`SealError`] says why not.
    pub fn open_secrets(&self, endpoint: EndpointId, stored: &str) -> Result<String, SealError> {
        self.open(&context(endpoint), stored)
    }

    /// Whether a stored text is as [`seal`](Self::seal) would store it now.
    pub fn is_current(&self, stored: &str) -> bool {
        match self.0.first() {
            Some(key) => stored.starts_with(&format!("{PREFIX}{VERSION}:{}:", key.id)),
            None => !stored.starts_with(PREFIX),
        }
    }
}

impl EncryptionKey {
    /// A key that is made of a secret, for one purpose. It is as hard to guess as the secret.
    ///
    /// # Errors
    ///
    /// Never in practice: the length of the key is fixed.
    pub fn derived(secret: &[u8], purpose: &str) -> Result<Self, InvalidKey> {
        let extracted = Salt::new(HKDF_SHA256, &[]).extract(secret);
        let info = [purpose.as_bytes()];
        let mut key = [0; KEY_BYTES];
        extracted
            .expand(&info, HKDF_SHA256)
            .and_then(|expanded| expanded.fill(&mut key))
            .map_err(|_| InvalidKey)?;
        Self::of_bytes(&key)
    }

    fn of_bytes(bytes: &[u8]) -> Result<Self, InvalidKey> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes).map_err(|_| InvalidKey)?;
        // The key is as random as its digest, so nothing of it is shown.
        let digest = digest(&SHA256, &[b"tidings encryption key ", bytes].concat());
        let id = digest.as_ref().first_chunk().ok_or(InvalidKey)?;
        Ok(Self {
            id: format!("{:08x}", u32::from_be_bytes(*id)),
            key: Arc::new(key),
        })
    }
}

impl fmt::Debug for EncryptionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&*self.0).finish()
    }
}

/// Shows the id, by which an operator recognises the key.
impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[redacted] {}", self.id)
    }
}

impl FromStr for EncryptionKey {
    type Err = InvalidKey;

    /// Reads base64 of both alphabets, with or without padding.
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let text = text.trim_end_matches('=');
        let text = text.replace('-', "+").replace('_', "/");
        let bytes = BASE64_STANDARD_NO_PAD.decode(text);
        let bytes = bytes.map_err(|_| InvalidKey)?;
        if bytes.len() != KEY_BYTES {
            return Err(InvalidKey);
        }
        Self::of_bytes(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> EncryptionKey {
        let text = BASE64_STANDARD_NO_PAD.encode([byte; KEY_BYTES]);
        text.parse().unwrap()
    }

    fn keys(bytes: &[u8]) -> EncryptionKeys {
        EncryptionKeys::new(bytes.iter().copied().map(key))
    }

    #[test]
    fn what_was_sealed_opens_in_its_context_alone() {
        let keys = keys(&[1]);
        let sealed = keys.seal("endpoint 1", "whsec_abc").unwrap();
        assert!(!sealed.contains("whsec_abc"));
        assert_eq!(keys.open("endpoint 1", &sealed).unwrap(), "whsec_abc");
        let elsewhere = keys.open("endpoint 2", &sealed);
        assert_eq!(elsewhere, Err(SealError::Changed));
        let again = keys.seal("endpoint 1", "whsec_abc").unwrap();
        assert_ne!(sealed, again, "the same nonce twice");
    }

    #[test]
    fn a_derived_key_opens_what_the_same_secret_has_sealed_for_the_same_purpose() {
        let keys = |secret: &str, purpose| {
            EncryptionKeys::new([EncryptionKey::derived(secret.as_bytes(), purpose).unwrap()])
        };
        let sealed = keys("secret", "a").seal("context", "text").unwrap();
        assert_eq!(
            keys("secret", "a").open("context", &sealed).unwrap(),
            "text"
        );
        for other in [keys("secret", "b"), keys("another", "a")] {
            let refused = other.open("context", &sealed);
            assert!(
                matches!(refused, Err(SealError::NoKey { .. })),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn a_text_that_was_changed_does_not_open() {
        let keys = keys(&[1]);
        let sealed = keys.seal("a", "text").unwrap();
        let start = sealed.rfind(':').unwrap() + 1;
        for at in start..sealed.len() {
            let mut changed = sealed.clone();
            let other = if &sealed[at..=at] == "A" { "B" } else { "A" };
            changed.replace_range(at..=at, other);
            assert!(keys.open("a", &changed).is_err(), "{at}");
        }
        for text in [
            "sealed:",
            "sealed:2:x:y",
            "sealed:1:",
            "sealed:1:aa:!",
            "sealed:1:aa:AAAA",
        ] {
            assert_eq!(keys.open("a", text), Err(SealError::UnknownForm), "{text}");
        }
    }

    #[test]
    fn the_first_key_encrypts_and_all_decrypt() {
        let (old, both, new) = (keys(&[1]), keys(&[2, 1]), keys(&[2]));
        let by_old = old.seal("a", "text").unwrap();
        assert_eq!(both.open("a", &by_old).unwrap(), "text");
        assert!(old.is_current(&by_old) && !both.is_current(&by_old));
        assert!(!EncryptionKeys::default().is_current(&by_old));
        let by_both = both.seal("a", "text").unwrap();
        assert_eq!(new.open("a", &by_both).unwrap(), "text");
        assert!(both.is_current(&by_both) && new.is_current(&by_both));
        let key_id = key(1).id;
        let lost = new.open("a", &by_old).unwrap_err();
        assert!(lost.to_string().contains(&key_id));
        assert_eq!(lost, SealError::NoKey { key_id });
    }

    #[test]
    fn without_a_key_texts_stay_as_they_are() {
        let (none, some) = (EncryptionKeys::default(), keys(&[1]));
        assert_eq!(none.seal("a", "text").unwrap(), "text");
        assert_eq!(some.open("a", "text").unwrap(), "text");
        assert!(none.is_current("text") && !some.is_current("text"));
        let sealed = some.seal("a", "text").unwrap();
        assert!(matches!(
            none.open("a", &sealed),
            Err(SealError::NoKey { .. })
        ));
    }

    #[test]
    fn a_key_is_32_bytes_in_base64_and_not_shown() {
        let padded = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
        let id = key(1).id;
        for text in [padded, &padded[..43]] {
            assert_eq!(text.parse::<EncryptionKey>().unwrap().id, id);
        }
        let urls = "__-_".repeat(10) + "__8";
        let standard = urls.replace('_', "/").replace('-', "+") + "=";
        let [urls, standard] = [urls, standard].map(|text| text.parse::<EncryptionKey>());
        assert_eq!(urls.unwrap().id, standard.unwrap().id);
        for text in [
            "",
            "AQEB",
            &padded[1..],
            &format!("{padded}AQEB"),
            "not base64!",
        ] {
            assert_eq!(text.parse::<EncryptionKey>().unwrap_err(), InvalidKey);
        }
        let shown = format!("{:?}", keys(&[1]));
        assert!(shown.contains(&id) && !shown.contains("AQEB"), "{shown}");
    }
}
