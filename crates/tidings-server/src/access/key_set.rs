//! JSON Web Key Sets, read.

use std::fmt;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::verification_keys::{UnusableKey, VerificationKey};

/// What a key set has for this server.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    pub(crate) keys: Vec<VerificationKey>,
    /// The keys of kinds or algorithms that this server does not know.
    pub(crate) unknown: Vec<NameInSet>,
}

/// Why a text is no key set that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// It is not JSON, or has no list of keys.
    #[error("expected a JSON Web Key Set: an object with a list `keys`")]
    Malformed,
    /// One of its keys says that it verifies tokens, and cannot.
    #[error("the key {name} {problem}")]
    Unusable {
        /// Which key.
        name: NameInSet,
        /// What is wrong with it.
        problem: UnusableKey,
    },
    /// It has no key that can be used.
    #[error("expected at least one public key for RS256, ES256 or EdDSA")]
    NoKeys,
}

/// What a key of a set is called: its `kid`, or its place in the list, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameInSet {
    /// Its `kid`.
    Id(String),
    /// Its place.
    Number(usize),
}

impl fmt::Display for NameInSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id:?}"),
            Self::Number(number) => write!(f, "{number} of the list"),
        }
    }
}

/// What a key says about itself, of any value: a kind that is new must not make the others useless.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Description {
    kty: Text,
    crv: Text,
    alg: Text,
    #[serde(rename = "use")]
    purpose: Text,
    key_ops: Option<Vec<Text>>,
    kid: Text,
}

/// A text, or nothing if there is something else.
#[derive(Default)]
struct Text(Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(value.as_str().map(str::to_owned)))
    }
}

/// Reads a key set. Keys for other purposes are left out.
pub(crate) fn parse(text: &[u8]) -> Result<KeySet, KeySetError> {
    #[derive(Deserialize)]
    struct Document<'a> {
        #[serde(borrow)]
        keys: Vec<&'a RawValue>,
    }
    let document: Document<'_> =
        serde_json::from_slice(text).map_err(|_| KeySetError::Malformed)?;
    let mut set = KeySet::default();
    for (key, number) in document.keys.into_iter().zip(1..) {
        let description: Description = serde_json::from_str(key.get()).unwrap_or_default();
        let name = match &description.kid.0 {
            Some(id) => NameInSet::Id(id.clone()),
            None => NameInSet::Number(number),
        };
        if !description.is_for_tokens() {
            continue;
        }
        let Some(algorithm) = description.algorithm() else {
            set.unknown.push(name);
            continue;
        };
        let jwk = serde_json::from_str::<Jwk>(key.get()).ok();
        let key = jwk.and_then(|jwk| DecodingKey::from_jwk(&jwk).ok());
        let key = key.ok_or(UnusableKey::Broken);
        let id = description.kid.0;
        let key = key.and_then(|key| VerificationKey::of_public_key(algorithm, id, key));
        set.keys
            .push(key.map_err(|problem| KeySetError::Unusable { name, problem })?);
    }
    if set.keys.is_empty() {
        return Err(KeySetError::NoKeys);
    }
    Ok(set)
}

impl Description {
    /// Whether the key may verify signatures, as far as it says.
    fn is_for_tokens(&self) -> bool {
        let purpose = self.purpose.0.as_deref();
        let operations = self.key_ops.as_ref();
        purpose.is_none_or(|purpose| purpose == "sig")
            && operations.is_none_or(|operations| {
                let mut operations = operations.iter();
                operations.any(|operation| operation.0.as_deref() == Some("verify"))
            })
    }

    /// The algorithm of ours that the key is for. Key sets are public, so a secret in one is not used.
    fn algorithm(&self) -> Option<Algorithm> {
        let kind = self.kty.0.as_deref()?;
        let curve = self.crv.0.as_deref();
        let (algorithm, name) = match (kind, curve) {
            ("RSA", _) => (Algorithm::RS256, "RS256"),
            ("EC", Some("P-256")) => (Algorithm::ES256, "ES256"),
            ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, "EdDSA"),
            _ => return None,
        };
        let named = self.alg.0.as_deref();
        named.is_none_or(|named| named == name).then_some(algorithm)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    use super::*;

    /// A key of P-256 with these changes; `null` removes a field.
    fn curve(change: &Value) -> Value {
        let mut key = json!({
            "kty": "EC", "crv": "P-256", "kid": "a", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"
        });
        let fields = key.as_object_mut().unwrap();
        fields.extend(change.as_object().unwrap().clone());
        fields.retain(|_, value| !value.is_null());
        key
    }

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Value {
        let [n, e] = [modulus, exponent].map(|bytes| BASE64_URL_SAFE_NO_PAD.encode(bytes));
        json!({ "kty": "RSA", "kid": "a", "alg": "RS256", "n": n, "e": e })
    }

    fn parsed(keys: &[Value]) -> Result<KeySet, KeySetError> {
        parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn a_key_set_has_the_keys_that_verify_signatures_and_no_secrets() {
        let other = || curve(&json!({ "kid": "other" }));
        for (key, is_used, is_unknown) in [
            (curve(&json!({})), true, false),
            (curve(&json!({ "use": "sig", "alg": "ES256" })), true, false),
            (curve(&json!({ "key_ops": ["verify"] })), true, false),
            (curve(&json!({ "use": "enc" })), false, false),
            (curve(&json!({ "key_ops": ["sign"] })), false, false),
            (curve(&json!({ "alg": "ES384" })), false, true),
            (curve(&json!({ "alg": "HS256" })), false, true),
            (curve(&json!({ "crv": "P-384" })), false, true),
            (curve(&json!({ "crv": "secp256k1" })), false, true),
            (json!({ "kty": "oct", "k": "c2VjcmV0" }), false, true),
            (json!({ "kty": "future", "kid": 7 }), false, true),
            (json!("text"), false, true),
        ] {
            let set = parsed(&[key.clone(), other()]).unwrap();
            assert_eq!(set.keys.len(), 1 + usize::from(is_used), "{key}");
            assert_eq!(set.unknown.len(), usize::from(is_unknown), "{key}");
        }
        for text in ["[]", "<html>", "{}", "", r#"{"keys":{}}"#] {
            assert_eq!(parse(text.as_bytes()).unwrap_err(), KeySetError::Malformed);
        }
        let none = parsed(&[json!({ "kty": "future" })]).unwrap_err();
        assert_eq!(none, KeySetError::NoKeys);
    }

    fn edwards(point: &[u8]) -> Value {
        let x = BASE64_URL_SAFE_NO_PAD.encode(point);
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "a", "x": x })
    }

    /// A token that anyone can make is right under such a key.
    #[test]
    fn regression_an_ed25519_key_of_small_order_is_refused_by_name() {
        const EIGHT: [&str; 2] = [
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        ];
        let of_order_8 = EIGHT.map(|hex| {
            let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
            std::array::from_fn(byte)
        });
        let (mut one, mut minus_one) = ([0; 32], [0xff; 32]);
        one[0] = 1;
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        let (mut zero_again, mut one_again) = (minus_one, minus_one);
        (zero_again[0], one_again[0]) = (0xed, 0xee);
        let weak: [[u8; 32]; 5] = [[0; 32], one, minus_one, zero_again, one_again];
        for point in weak.into_iter().chain(of_order_8) {
            for sign in [0, 0x80] {
                let mut point = point;
                point[31] |= sign;
                let refused = parsed(&[edwards(&point)]).unwrap_err();
                let name = NameInSet::Id("a".to_owned());
                let problem = UnusableKey::Weak;
                assert_eq!(
                    refused,
                    KeySetError::Unusable { name, problem },
                    "{point:x?}"
                );
            }
        }
        let pair = Ed25519KeyPair::generate().unwrap();
        let good = edwards(pair.public_key().as_ref());
        assert_eq!(parsed(&[good]).unwrap().keys.len(), 1);
    }

    #[test]
    fn regression_a_key_that_cannot_verify_makes_the_set_unusable_by_name() {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let public = pair.public_key();
        let modulus = public.modulus().big_endian_without_leading_zero();
        let odd = [1, 0, 1];
        assert_eq!(parsed(&[rsa(modulus, &odd)]).unwrap().keys.len(), 1);
        let broken = UnusableKey::Broken;
        for (key, problem) in [
            (rsa(&[0xff; 128], &odd), UnusableKey::Size { bits: 1024 }),
            (rsa(modulus, &[2]), broken),
            (rsa(modulus, &[]), broken),
            (curve(&json!({ "x": null })), broken),
            (curve(&json!({ "x": "MKBC" })), broken),
            (curve(&json!({ "x": "?" })), broken),
            // A point that is not on the curve.
            (
                curve(&json!({ "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyA" })),
                broken,
            ),
            (edwards(&[0; 3]), broken),
        ] {
            let good = curve(&json!({ "kid": "good" }));
            let refused = parsed(&[good, key.clone()]).unwrap_err();
            let name = NameInSet::Id("a".to_owned());
            assert_eq!(refused, KeySetError::Unusable { name, problem }, "{key}");
        }
        let unnamed = curve(&json!({ "kid": null, "x": "MKBC" }));
        let refused = parsed(&[unnamed]).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("the key 1 of the list is broken")
        );
    }
}
