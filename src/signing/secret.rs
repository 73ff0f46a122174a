use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

const PREFIX: &str = "whsec_";

/// Fewest bytes of a secret, by Standard Webhooks.
const MIN_BYTES: usize = 24;

/// Most bytes of a secret, by Standard Webhooks.
const MAX_BYTES: usize = 64;

/// Writes padding and reads text with and without it: some systems cut the `=` off.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A key that both ends of a webhook share: 24 to 64 random bytes, written `whsec_` and base64.
///
/// Clones share the bytes, which are wiped when the last clone is dropped. `Debug` does not show
/// them, and there is neither `Display` nor `Serialize`: use [`expose`](Self::expose) to store a
/// secret. It can be deserialized from its text.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    /// Draws 24 bytes from the operating system's random source.
    ///
    /// # Panics
    ///
    /// If the operating system has no random source, which does not happen on Linux after boot.
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new(vec![0; MIN_BYTES]);
        getrandom::fill(&mut bytes).expect("the operating system has a random source");
        Self(Arc::new(bytes))
    }

    /// Takes the bytes of a secret.
    ///
    /// # Errors
    ///
    /// [`InvalidSecret::Empty`], [`InvalidSecret::Length`].
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Self, InvalidSecret> {
        let bytes = Zeroizing::new(bytes.into());
        match bytes.len() {
            0 => Err(InvalidSecret::Empty),
            MIN_BYTES..=MAX_BYTES => Ok(Self(Arc::new(bytes))),
            length => Err(InvalidSecret::Length { length }),
        }
    }

    /// Reads `whsec_` and base64, or only base64.
    ///
    /// # Errors
    ///
    /// Every [`InvalidSecret`].
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let is_around = |c: char| c.is_whitespace() || matches!(c, '"' | '\'');
        if text.starts_with(is_around) || text.ends_with(is_around) {
            return Err(InvalidSecret::Surrounded);
        }
        if text.starts_with("v1,") {
            return Err(InvalidSecret::Version);
        }
        let encoded = match text.strip_prefix(PREFIX) {
            Some(encoded) => encoded,
            // No base64 of this alphabet has an underscore: this is some other kind of key.
            None if text.contains('_') => return Err(InvalidSecret::Prefix),
            None => text,
        };
        let bytes = BASE64.decode(encoded).map_err(|error| match error {
            DecodeError::InvalidByte(..) => InvalidSecret::NotBase64,
            DecodeError::InvalidLength(_)
            | DecodeError::InvalidLastSymbol { .. }
            | DecodeError::InvalidPadding => InvalidSecret::CutOff,
        })?;
        Self::from_bytes(bytes)
    }

    /// The secret as text, `whsec_` and base64, to store it or to show it to its owner.
    pub fn expose(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + MAX_BYTES * 2));
        text.push_str(PREFIX);
        BASE64.encode_string(self.as_bytes(), &mut text);
        text
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A text or bytes that cannot be a secret. It does not repeat them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSecret {
    /// The text or the bytes are empty.
    #[error("expected a secret, got an empty text")]
    Empty,
    /// It has spaces or quotation marks around it.
    #[error("expected no spaces and no quotation marks around the secret")]
    Surrounded,
    /// It begins like a signature.
    #[error("expected a secret without `v1,` before it")]
    Version,
    /// It begins like another kind of key.
    #[error("expected `whsec_` and base64, got another prefix")]
    Prefix,
    /// What follows the prefix is not base64.
    #[error("expected base64 of the standard alphabet, with `+` and `/` instead of `-` and `_`")]
    NotBase64,
    /// The base64 ends in the middle of a byte.
    #[error("expected the whole secret, got base64 that is cut off")]
    CutOff,
    /// It has too few or too many bytes.
    #[error(
        "expected {MIN_BYTES} to {MAX_BYTES} bytes, got {length}{}",
        if *length < MIN_BYTES { ", as if it were cut off" } else { "" }
    )]
    Length {
        /// How many bytes it has.
        length: usize,
    },
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl FromStr for Secret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_secret_is_read_with_and_without_its_prefix_and_padding() {
        let whole = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        for text in [whole, &whole[6..], whole.trim_end_matches('=')] {
            let secret = Secret::parse(text).unwrap();
            assert_eq!(secret.as_bytes(), (0..32).collect::<Vec<u8>>());
            assert_eq!(*secret.expose(), whole);
        }
    }

    #[test]
    fn other_texts_are_refused_by_reason() {
        let short = format!("whsec_{}", BASE64.encode([1; 23]));
        let long = format!("whsec_{}", BASE64.encode([1; 65]));
        let whole = format!("whsec_{}", BASE64.encode([1; 24]));
        for (text, reason) in [
            ("", InvalidSecret::Empty),
            ("whsec_", InvalidSecret::Empty),
            (
                "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                InvalidSecret::Prefix,
            ),
            (
                "WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                InvalidSecret::Prefix,
            ),
            ("whsec_not base64!", InvalidSecret::NotBase64),
            (&format!(" {whole}"), InvalidSecret::Surrounded),
            (&format!("{whole}\n"), InvalidSecret::Surrounded),
            (&format!("'{whole}"), InvalidSecret::Surrounded),
            (&format!("{whole}\""), InvalidSecret::Surrounded),
            (&format!("v1,{whole}"), InvalidSecret::Version),
            (&short, InvalidSecret::Length { length: 23 }),
            (&long, InvalidSecret::Length { length: 65 }),
        ] {
            assert_eq!(Secret::parse(text).unwrap_err(), reason, "{text}");
        }
    }

    #[test]
    fn a_secret_of_which_a_part_is_missing_is_called_cut_off() {
        let whole = Secret::generate().expose();
        for length in PREFIX.len() + 1..whole.len() {
            let said = Secret::parse(&whole[..length]).unwrap_err().to_string();
            assert!(said.contains("cut off"), "{length}: {said}");
        }
        let long = InvalidSecret::Length { length: 65 };
        assert_eq!(long.to_string(), "expected 24 to 64 bytes, got 65");
    }

    #[test]
    fn generated_secrets_differ_and_debug_output_does_not_show_them() {
        let (one, two) = (Secret::generate(), Secret::generate());
        assert_ne!(*one.expose(), *two.expose());
        assert_eq!(one.as_bytes().len(), 24);
        assert_eq!(format!("{one:?}"), "[redacted]");
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in ".*") {
            drop(Secret::parse(&text));
        }

        #[test]
        fn a_secret_reads_back_as_written(bytes in prop::collection::vec(any::<u8>(), 24..=64)) {
            let secret = Secret::from_bytes(bytes.clone()).unwrap();
            let again = Secret::parse(&secret.expose()).unwrap();
            prop_assert_eq!(again.as_bytes(), bytes);
        }
    }
}
