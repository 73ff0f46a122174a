//! The keys that verify tokens. Each belongs to one algorithm, so that no key is ever used for another.

use std::fmt;
use std::path::{Path, PathBuf};

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::settings::jwt::JwtSecret;

/// Length of an uncompressed point of P-256.
const P256_POINT_BYTES: usize = 65;

/// Length of a public key of Ed25519.
const ED25519_BYTES: usize = 32;

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

impl VerificationKey {
    pub(crate) fn of_secret(secret: &JwtSecret) -> Self {
        Self {
            algorithm: Algorithm::HS256,
            id: None,
            key: DecodingKey::from_secret(secret.expose()),
        }
    }

    pub(crate) fn read_pem(path: &Path) -> Result<Self, KeyFileError> {
        let text = std::fs::read(path).map_err(|source| KeyFileError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::of_pem(&text).ok_or_else(|| KeyFileError::NoPublicKey {
            path: path.to_owned(),
        })
    }

    fn of_pem(text: &[u8]) -> Option<Self> {
        // The library takes the number in a private key of RSA for a public one.
        if String::from_utf8_lossy(text).contains("PRIVATE KEY") {
            return None;
        }
        let has_length = |key: &DecodingKey, length| {
            key.try_get_as_bytes()
                .is_ok_and(|bytes| bytes.len() == length)
        };
        let ec = || {
            let key = DecodingKey::from_ec_pem(text).ok()?;
            has_length(&key, P256_POINT_BYTES).then_some((Algorithm::ES256, key))
        };
        let ed = || {
            let key = DecodingKey::from_ed_pem(text).ok()?;
            has_length(&key, ED25519_BYTES).then_some((Algorithm::EdDSA, key))
        };
        let rsa = || Some((Algorithm::RS256, DecodingKey::from_rsa_pem(text).ok()?));
        let (algorithm, key) = ec().or_else(ed).or_else(rsa)?;
        Some(Self {
            algorithm,
            id: None,
            key,
        })
    }

    /// The key of an entry of a key set; `None` if it does not verify tokens by an algorithm of ours. Key
    /// sets are public, so a secret in one is not used.
    fn of_jwk(jwk: &Jwk) -> Option<Self> {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
                Algorithm::ES256
            }
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                Algorithm::EdDSA
            }
            _ => return None,
        };
        let common = &jwk.common;
        let is_for_signatures = common
            .public_key_use
            .as_ref()
            .is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
        let is_for_verifying = common
            .key_operations
            .as_ref()
            .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        let is_for_algorithm = common
            .key_algorithm
            .is_none_or(|named| named == KeyAlgorithm::from(algorithm));
        if !(is_for_signatures && is_for_verifying && is_for_algorithm) {
            return None;
        }
        Some(Self {
            algorithm,
            id: common.key_id.clone(),
            key: DecodingKey::from_jwk(jwk).ok()?,
        })
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
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

/// Reads a JSON Web Key Set. Entries that cannot verify tokens are left out.
pub(crate) fn parse_jwks(text: &[u8]) -> Result<Vec<VerificationKey>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Document<'a> {
        #[serde(borrow)]
        keys: Vec<&'a RawValue>,
    }
    let document: Document<'_> = serde_json::from_slice(text)?;
    let keys = document.keys.into_iter();
    // An entry of a kind that is not known yet must not make the others useless.
    let jwks = keys.filter_map(|key| serde_json::from_str::<Jwk>(key.get()).ok());
    Ok(jwks
        .filter_map(|jwk| VerificationKey::of_jwk(&jwk))
        .collect())
}

/// Why a file with a key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("--jwt-public-key: cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system reported.
        source: std::io::Error,
    },
    /// The file has no key that can be used.
    #[error(
        "--jwt-public-key: expected a public key of RSA, P-256 or Ed25519 in PEM in {}",
        path.display()
    )]
    NoPublicKey {
        /// The file.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, SignatureAlgorithm};
    use serde_json::{Value, json};

    use super::*;

    fn pem(algorithm: &'static SignatureAlgorithm) -> (String, String) {
        let pair = KeyPair::generate_for(algorithm).unwrap();
        (pair.public_key_pem(), pair.serialize_pem())
    }

    #[test]
    fn the_kind_of_a_public_key_decides_its_algorithm_and_a_private_key_is_refused() {
        for (kind, algorithm) in [
            (&rcgen::PKCS_RSA_SHA256, Some(Algorithm::RS256)),
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(Algorithm::ES256)),
            (&rcgen::PKCS_ED25519, Some(Algorithm::EdDSA)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, None),
        ] {
            let (public, private) = pem(kind);
            let key = VerificationKey::of_pem(public.as_bytes());
            assert_eq!(key.map(|key| key.algorithm), algorithm);
            assert!(VerificationKey::of_pem(private.as_bytes()).is_none());
        }
        assert!(VerificationKey::of_pem(b"").is_none());
        assert!(VerificationKey::of_pem(b"0123456789abcdef").is_none());
    }

    #[test]
    fn a_key_set_has_the_keys_that_verify_signatures_and_no_secrets() {
        let curve = |change: Value| {
            let mut key = json!({
                "kty": "EC", "crv": "P-256", "kid": "a", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"
            });
            let fields = change.as_object().unwrap().clone();
            key.as_object_mut().unwrap().extend(fields);
            key
        };
        for (key, is_used) in [
            (curve(json!({})), true),
            (curve(json!({ "use": "sig", "alg": "ES256" })), true),
            (curve(json!({ "key_ops": ["verify"] })), true),
            (curve(json!({ "use": "enc" })), false),
            (curve(json!({ "alg": "ES384" })), false),
            (curve(json!({ "alg": "HS256" })), false),
            (curve(json!({ "key_ops": ["sign"] })), false),
            (curve(json!({ "crv": "P-384" })), false),
            (curve(json!({ "crv": "secp256k1" })), false),
            (json!({ "kty": "oct", "k": "c2VjcmV0" }), false),
            (json!({ "kty": "future" }), false),
            (json!("text"), false),
        ] {
            let set = json!({ "keys": [key, curve(json!({ "kid": "other" }))] });
            let keys = parse_jwks(set.to_string().as_bytes()).unwrap();
            assert_eq!(keys.len(), 1 + usize::from(is_used), "{set}");
        }
        parse_jwks(b"[]").unwrap_err();
        parse_jwks(b"<html>").unwrap_err();
    }

    #[test]
    fn a_key_is_found_by_algorithm_and_id() {
        let mut key = VerificationKey::of_secret(&JwtSecret::from("x".repeat(32)));
        assert!(key.matches(Algorithm::HS256, None));
        assert!(key.matches(Algorithm::HS256, Some("any")));
        assert!(!key.matches(Algorithm::RS256, None));
        key.id = Some("a".to_owned());
        assert!(key.matches(Algorithm::HS256, Some("a")));
        assert!(key.matches(Algorithm::HS256, None));
        assert!(!key.matches(Algorithm::HS256, Some("b")));
    }
}
