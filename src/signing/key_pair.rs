use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

const PRIVATE_PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";

/// Bytes of the seed, and of the public half.
const HALF: usize = 32;

/// The half of an Ed25519 key pair that signs: written `whsk_` and base64 of 64 bytes, the seed and
/// the public half.
///
/// With it, receivers hold nothing that could sign: they get the [`public_key`](Self::public_key).
/// Clones share the bytes, which are wiped when the last clone is dropped. `Debug` does not show
/// them, and there is neither `Display` nor `Serialize`: use [`expose`](Self::expose) to store a
/// key. It can be deserialized from its text.
#[derive(Clone)]
pub struct PrivateKey(Arc<SigningKey>);

impl PrivateKey {
    /// Makes a key pair from the operating system's random source.
    ///
    /// # Panics
    ///
    /// If the operating system has no random source, which does not happen on Linux after boot.
    pub fn generate() -> Self {
        let mut seed = Zeroizing::new([0; HALF]);
        getrandom::fill(&mut *seed).expect("the operating system has a random source");
        Self(Arc::new(SigningKey::from_bytes(&seed)))
    }

    /// Reads `whsk_` and base64.
    ///
    /// # Errors
    ///
    /// Every [`InvalidKey`].
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let bytes = Zeroizing::new(decode::<{ 2 * HALF }>(text, PRIVATE_PREFIX)?);
        // Signing with a public half that belongs to another seed would give the seed away.
        let key = SigningKey::from_keypair_bytes(&bytes).map_err(|_| InvalidKey::Mismatch)?;
        Ok(Self(Arc::new(key)))
    }

    /// The key as text, `whsk_` and base64, to store it.
    pub fn expose(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new(self.0.to_keypair_bytes());
        let mut text = Zeroizing::new(String::with_capacity(PRIVATE_PREFIX.len() + 4 * HALF));
        text.push_str(PRIVATE_PREFIX);
        BASE64.encode_string(*bytes, &mut text);
        text
    }

    /// The half that receivers get.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub(super) fn sign(&self, content: &[u8]) -> [u8; Signature::BYTE_SIZE] {
        self.0.sign(content).to_bytes()
    }
}

/// The half of an Ed25519 key pair that verifies: written `whpk_` and base64 of 32 bytes.
///
/// It is no secret: `Display` writes it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads `whpk_` and base64.
    ///
    /// # Errors
    ///
    /// Every [`InvalidKey`] but [`Mismatch`](InvalidKey::Mismatch).
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let bytes = decode(text, PUBLIC_PREFIX)?;
        match VerifyingKey::from_bytes(&bytes) {
            // Under a weak key one signature can fit many messages.
            Ok(key) if !key.is_weak() => Ok(Self(key)),
            _ => Err(InvalidKey::NotAPoint),
        }
    }

    pub(super) fn verifies(&self, content: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.0.verify_strict(content, &signature).is_ok())
    }
}

/// A text that cannot be a key. It does not repeat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// It does not begin as this kind of key does.
    #[error("expected `{expected}` and base64")]
    Prefix {
        /// How it should begin.
        expected: &'static str,
    },
    /// What follows the prefix is not base64.
    #[error("expected base64 of the standard alphabet, with padding")]
    NotBase64,
    /// It has too few or too many bytes.
    #[error("expected {expected} bytes, got {length}")]
    Length {
        /// How many bytes it should have.
        expected: usize,
        /// How many bytes it has.
        length: usize,
    },
    /// The public half does not belong to the seed.
    #[error("expected a seed and its own public half")]
    Mismatch,
    /// The bytes are not a point of the curve, or one of the few that cannot be used as a key.
    #[error("expected a public key of Ed25519")]
    NotAPoint,
}

fn decode<const BYTES: usize>(text: &str, prefix: &'static str) -> Result<[u8; BYTES], InvalidKey> {
    let expected = InvalidKey::Prefix { expected: prefix };
    let encoded = text.strip_prefix(prefix).ok_or(expected)?;
    let bytes = Zeroizing::new(BASE64.decode(encoded).map_err(|_| InvalidKey::NotBase64)?);
    <[u8; BYTES]>::try_from(bytes.as_slice()).map_err(|_| InvalidKey::Length {
        expected: BYTES,
        length: bytes.len(),
    })
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC_PREFIX}{}", BASE64.encode(self.0.as_bytes()))
    }
}

impl FromStr for PrivateKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for PrivateKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PRIVATE: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";

    #[test]
    fn both_halves_are_read_and_written_alike() {
        let key = PrivateKey::parse(PRIVATE).unwrap();
        assert_eq!(*key.expose(), PRIVATE);
        assert_eq!(key.public_key().to_string(), PUBLIC);
        assert_eq!(PublicKey::parse(PUBLIC), Ok(key.public_key()));
        assert_eq!(format!("{key:?}"), "[redacted]");
        let json = serde_json::to_string(&key.public_key()).unwrap();
        let read: PublicKey = serde_json::from_str(&json).unwrap();
        assert_eq!(read, key.public_key());
    }

    #[test]
    fn other_texts_are_refused_by_reason() {
        let private = |text: &str| PrivateKey::parse(text).unwrap_err();
        let public = |text: &str| PublicKey::parse(text).unwrap_err();
        let of = |prefix: &str, bytes: &[u8]| format!("{prefix}{}", BASE64.encode(bytes));
        let prefix = |expected| InvalidKey::Prefix { expected };
        for text in ["", "whsec_AAAA", PUBLIC, &PRIVATE[5..]] {
            assert_eq!(private(text), prefix("whsk_"), "{text}");
        }
        for text in ["", PRIVATE, &PUBLIC[5..]] {
            assert_eq!(public(text), prefix("whpk_"), "{text}");
        }
        assert_eq!(private("whsk_not base64!"), InvalidKey::NotBase64);
        let (expected, length) = (64, 32);
        assert_eq!(
            private(&of("whsk_", &[1; 32])),
            InvalidKey::Length { expected, length }
        );
        let (expected, length) = (32, 0);
        assert_eq!(public("whpk_"), InvalidKey::Length { expected, length });
        assert_eq!(private(&of("whsk_", &[1; 64])), InvalidKey::Mismatch);
        // The neutral element is a point, and every signature of it fits.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert_eq!(public(&of("whpk_", &neutral)), InvalidKey::NotAPoint);
        assert_eq!(public(&of("whpk_", &[2; 32])), InvalidKey::NotAPoint);
    }

    #[test]
    fn generated_keys_differ_and_read_back() {
        let (one, two) = (PrivateKey::generate(), PrivateKey::generate());
        assert_ne!(*one.expose(), *two.expose());
        let again = PrivateKey::parse(&one.expose()).unwrap();
        assert_eq!(again.public_key(), one.public_key());
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "(whsk_|whpk_)?[A-Za-z0-9+/=]{0,100}|.*") {
            drop(PrivateKey::parse(&text));
            prop_assert!(PublicKey::parse(&text).is_err() || text.starts_with(PUBLIC_PREFIX));
        }
    }
}
