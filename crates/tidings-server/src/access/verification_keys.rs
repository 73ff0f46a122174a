//! The keys that verify tokens. Each belongs to one algorithm, so that no key is ever used for another.

use std::fmt;

use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RsaPublicKeyComponents,
};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};

use crate::settings::jwt::JwtSecret;

/// The sizes of RSA keys: a smaller one can be broken, a larger one the library does not verify by.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The sizes of the public exponent of RSA: 3 is the smallest, and the library takes none beyond 33 bits.
const EXPONENT_BITS: std::ops::RangeInclusive<usize> = 2..=33;

/// A key, and the algorithm that it is for.
#[derive(Clone)]
pub(crate) struct VerificationKey {
    algorithm: Algorithm,
    /// What tokens call it.
    id: Option<String>,
    key: DecodingKey,
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { algorithm, id, .. } = self;
        write!(f, "{algorithm:?} {id:?}")
    }
}

/// Why a public key cannot verify tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableKey {
    /// It is a key pair, which must not be on the server.
    #[error("is a private key; expected the public key of it")]
    Private,
    /// It is of RSA, and too small or too large.
    #[error(
        "is an RSA key of {bits} bits; expected {} to {} bits",
        RSA_BITS.start(),
        RSA_BITS.end()
    )]
    Size {
        /// Bits of its modulus.
        bits: usize,
    },
    /// It is of Ed25519, and a few signatures are right for any text.
    #[error(
        "is an Ed25519 key of small order, for which anyone can sign; expected a generated one"
    )]
    Weak,
    /// It is no key, or one of another kind.
    #[error("is broken or of another kind; expected a public key of RSA, P-256 or Ed25519")]
    Broken,
}

impl VerificationKey {
    pub(crate) fn of_secret(secret: &JwtSecret) -> Self {
        Self {
            algorithm: Algorithm::HS256,
            id: None,
            key: DecodingKey::from_secret(secret.expose()),
        }
    }

    /// Checks a public key. With one that is broken, each token would be refused for its signature.
    pub(super) fn of_public_key(
        algorithm: Algorithm,
        id: Option<String>,
        key: DecodingKey,
    ) -> Result<Self, UnusableKey> {
        match (algorithm, key.kind()) {
            (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                check_rsa(n, e)?;
                let rsa = RsaPublicKeyComponents { n, e };
                let parsed =
                    rsa.to_parsed_public_key(&aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256);
                parsed.map_err(|_| UnusableKey::Broken)?;
            }
            (Algorithm::RS256, DecodingKeyKind::SecretOrDer(der)) => {
                let rsa = rsa::PublicKey::from_der(der).map_err(|_| UnusableKey::Broken)?;
                check_rsa(
                    rsa.modulus().big_endian_without_leading_zero(),
                    rsa.exponent().big_endian_without_leading_zero(),
                )?;
            }
            (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => {
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                    .map_err(|_| UnusableKey::Broken)?;
            }
            (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(point)) => {
                ParsedPublicKey::new(&ED25519, point).map_err(|_| UnusableKey::Broken)?;
                if is_of_small_order(point) {
                    return Err(UnusableKey::Weak);
                }
            }
            _ => return Err(UnusableKey::Broken),
        }
        Ok(Self { algorithm, id, key })
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What tokens call it, if it has a name.
    pub(crate) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    pub(crate) fn key(&self) -> &DecodingKey {
        &self.key
    }

    /// Whether a token with this header can be signed by this key.
    pub(crate) fn matches(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        let is_named = match (&self.id, id) {
            (Some(own), Some(id)) => own == id,
            _ => true,
        };
        self.algorithm == algorithm && is_named
    }
}

/// The points of Ed25519 whose order is 8 or less, by their coordinate `y` from the lowest byte: 0, 1, -1, the two of
/// order 8, and the other spellings of 0 and 1
/// ([RFC 8032, section 5.1](https://www.rfc-editor.org/rfc/rfc8032#section-5.1)).
const SMALL_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    with_ends(0x01, 0x00, 0x00),
    with_ends(0xec, 0xff, 0x7f),
    with_ends(0xed, 0xff, 0x7f),
    with_ends(0xee, 0xff, 0x7f),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
];

const fn with_ends(first: u8, between: u8, last: u8) -> [u8; 32] {
    let mut bytes = [between; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

/// Whether a few signatures are right for every text under this key. The sign of `x`, the highest bit, does not
/// matter.
fn is_of_small_order(point: &[u8]) -> bool {
    let Ok(mut y) = <[u8; 32]>::try_from(point) else {
        return false;
    };
    y[31] &= 0x7f;
    SMALL_ORDER.contains(&y)
}

/// Checks the numbers of an RSA key, in bytes from the highest. The library does so at each verification.
fn check_rsa(modulus: &[u8], exponent: &[u8]) -> Result<(), UnusableKey> {
    let bits = bits(modulus);
    if !RSA_BITS.contains(&bits) {
        return Err(UnusableKey::Size { bits });
    }
    let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
    let has_size = EXPONENT_BITS.contains(&self::bits(exponent));
    if is_odd(modulus) && is_odd(exponent) && has_size {
        Ok(())
    } else {
        Err(UnusableKey::Broken)
    }
}

/// How many binary digits a number has.
fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let digits = &number[zeros..];
    let unused = digits.first().map_or(0, |first| first.leading_zeros());
    digits.len() * 8 - unused as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_algorithm_and_id() {
        let mut key = VerificationKey::of_secret(&"x".repeat(32).parse().unwrap());
        assert!(key.matches(Algorithm::HS256, None));
        assert!(key.matches(Algorithm::HS256, Some("any")));
        assert!(!key.matches(Algorithm::RS256, None));
        key.id = Some("a".to_owned());
        assert!(key.matches(Algorithm::HS256, Some("a")));
        assert!(key.matches(Algorithm::HS256, None));
        assert!(!key.matches(Algorithm::HS256, Some("b")));
    }

    #[test]
    fn the_numbers_of_an_rsa_key_are_odd_and_of_their_sizes() {
        let modulus = |first: u8, bytes: usize| {
            let mut modulus = vec![0, 0];
            modulus.push(first);
            modulus.resize(2 + bytes, 1);
            modulus
        };
        for (modulus, bits) in [
            (modulus(0x7f, 256), Err(2047)),
            (modulus(0x80, 256), Ok(())),
            (modulus(0xff, 1024), Ok(())),
            (modulus(0x01, 1025), Err(8193)),
            (vec![], Err(0)),
            (vec![0], Err(0)),
        ] {
            let expected = bits.map_err(|bits| UnusableKey::Size { bits });
            assert_eq!(check_rsa(&modulus, &[1, 0, 1]), expected);
        }
        let good = modulus(0x80, 256);
        let mut even = good.clone();
        even[257] = 2;
        assert_eq!(check_rsa(&even, &[3]), Err(UnusableKey::Broken));
        assert_eq!(check_rsa(&good, &[0, 0, 3]), Ok(()));
        for exponent in [&[][..], &[0], &[1], &[2], &[2, 0, 0, 0, 1]] {
            assert_eq!(check_rsa(&good, exponent), Err(UnusableKey::Broken));
        }
    }
}
