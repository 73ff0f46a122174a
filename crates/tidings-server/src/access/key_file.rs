//! Public keys in PEM files.

use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa;
use jsonwebtoken::{Algorithm, DecodingKey};

use super::verification_keys::{UnusableKey, VerificationKey};
use crate::small_file;

/// The largest file: hundreds of keys take less.
const MAX_BYTES: u64 = 256 * 1024;

/// What a [`SubjectPublicKeyInfo`](https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.7) has before an uncompressed
/// point of P-256 ([RFC 5480](https://www.rfc-editor.org/rfc/rfc5480#section-2)).
const BEFORE_P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Length of an uncompressed point of P-256.
const P256_BYTES: usize = 65;

/// What it has before a key of Ed25519 ([RFC 8410](https://www.rfc-editor.org/rfc/rfc8410#section-4)).
const BEFORE_ED25519: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Length of a public key of Ed25519.
const ED25519_BYTES: usize = 32;

/// Why a file with keys cannot be used.
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
    /// The file has no key.
    #[error(
        "--jwt-public-key: expected a public key of RSA, P-256 or Ed25519 in PEM in {}",
        path.display()
    )]
    NoPublicKey {
        /// The file.
        path: PathBuf,
    },
    /// The file has a key that cannot be used.
    #[error("--jwt-public-key: key {number} in {} {problem}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Which of its keys, counted from 1.
        number: usize,
        /// What is wrong with the key.
        problem: UnusableKey,
    },
}

/// Reads all keys of a PEM file.
pub(crate) fn read(path: &Path) -> Result<Vec<VerificationKey>, KeyFileError> {
    let text = small_file::read(path, MAX_BYTES).map_err(|source| KeyFileError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let keys = parse(&String::from_utf8_lossy(&text));
    let keys = keys.map_err(|(number, problem)| KeyFileError::Unusable {
        path: path.to_owned(),
        number,
        problem,
    })?;
    if keys.is_empty() {
        return Err(KeyFileError::NoPublicKey {
            path: path.to_owned(),
        });
    }
    Ok(keys)
}

/// The keys in a text, or the number of the first that cannot be used. What is around them, people may
/// write as they like.
fn parse(text: &str) -> Result<Vec<VerificationKey>, (usize, UnusableKey)> {
    let blocks = blocks(text);
    let keys = blocks.iter().zip(1..);
    keys.map(|(block, number)| key(block).map_err(|problem| (number, problem)))
        .collect()
}

/// The parts of a text that begin with `-----BEGIN …`. A part without its end lasts to the next.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut is_inside = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("-----BEGIN ") {
            blocks.push(String::new());
            is_inside = true;
        }
        if let (true, Some(block)) = (is_inside, blocks.last_mut()) {
            block.push_str(line);
            block.push('\n');
        }
        is_inside &= !line.starts_with("-----END ");
    }
    blocks
}

fn key(block: &str) -> Result<VerificationKey, UnusableKey> {
    // It must not be on the server at all.
    if block.contains("PRIVATE KEY") {
        return Err(UnusableKey::Private);
    }
    let pem = pem::parse(block).map_err(|_| UnusableKey::Broken)?;
    let found = match pem.tag() {
        "PUBLIC KEY" => of_public_key_info(pem.contents()),
        "RSA PUBLIC KEY" => Some((Algorithm::RS256, DecodingKey::from_rsa_der(pem.contents()))),
        _ => None,
    };
    let (algorithm, key) = found.ok_or(UnusableKey::Broken)?;
    VerificationKey::of_public_key(algorithm, None, key)
}

/// The key in a `SubjectPublicKeyInfo`, if that is written in the one way there is, and nothing follows it.
fn of_public_key_info(der: &[u8]) -> Option<(Algorithm, DecodingKey)> {
    let after = |before, length| {
        let key: Option<&[u8]> = der.strip_prefix(before);
        key.filter(|key| key.len() == length)
    };
    if let Some(point) = after(BEFORE_P256, P256_BYTES) {
        return Some((Algorithm::ES256, DecodingKey::from_ec_der(point)));
    }
    if let Some(key) = after(BEFORE_ED25519, ED25519_BYTES) {
        return Some((Algorithm::EdDSA, DecodingKey::from_ed_der(key)));
    }
    let key = rsa::PublicKey::from_der(der).ok()?;
    // The library takes a key for other paddings too, and what follows.
    let written: PublicKeyX509Der<'_> = key.as_der().ok()?;
    let is_same = written.as_ref() == der;
    is_same.then(|| (Algorithm::RS256, DecodingKey::from_rsa_der(key.as_ref())))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
    use aws_lc_rs::signature::KeyPair as _;
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use rcgen::{KeyPair, SignatureAlgorithm};

    use super::*;

    fn pem(algorithm: &'static SignatureAlgorithm) -> (String, String) {
        let pair = KeyPair::generate_for(algorithm).unwrap();
        (pair.public_key_pem(), pair.serialize_pem())
    }

    fn algorithms(text: &str) -> Result<Vec<Algorithm>, (usize, UnusableKey)> {
        let keys = parse(text)?;
        Ok(keys.iter().map(VerificationKey::algorithm).collect())
    }

    #[test]
    fn the_kind_of_a_public_key_decides_its_algorithm_and_a_private_key_is_refused() {
        for (kind, expected) in [
            (&rcgen::PKCS_RSA_SHA256, Ok(vec![Algorithm::RS256])),
            (&rcgen::PKCS_ECDSA_P256_SHA256, Ok(vec![Algorithm::ES256])),
            (&rcgen::PKCS_ED25519, Ok(vec![Algorithm::EdDSA])),
            (
                &rcgen::PKCS_ECDSA_P384_SHA384,
                Err((1, UnusableKey::Broken)),
            ),
        ] {
            let (public, private) = pem(kind);
            assert_eq!(algorithms(&public), expected);
            assert_eq!(algorithms(&private), Err((1, UnusableKey::Private)));
        }
        assert_eq!(algorithms(""), Ok(vec![]));
        assert_eq!(algorithms("0123456789abcdef"), Ok(vec![]));
    }

    #[test]
    fn a_file_without_a_key_is_refused_by_its_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in ["", "0123456789abcdef\n"] {
            std::fs::write(file.path(), text).unwrap();
            let refused = read(file.path()).unwrap_err().to_string();
            assert!(refused.contains("expected a public key"), "{refused}");
            assert!(
                refused.ends_with(file.path().to_str().unwrap()),
                "{refused}"
            );
        }
    }

    #[test]
    fn regression_every_key_of_a_file_counts() {
        let (ec, _) = pem(&rcgen::PKCS_ECDSA_P256_SHA256);
        let (ed, private) = pem(&rcgen::PKCS_ED25519);
        let both = format!(
            "the old one:\r\n{}\n# the new one\n{ed}",
            ec.replace('\n', "\r\n")
        );
        let expected = vec![Algorithm::ES256, Algorithm::EdDSA];
        assert_eq!(algorithms(&both), Ok(expected));
        for (second, problem) in [
            (private.as_str(), UnusableKey::Private),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n", UnusableKey::Broken),
            (&ed[..ed.len() / 2], UnusableKey::Broken),
            (
                &ed.replace("PUBLIC KEY", "CERTIFICATE"),
                UnusableKey::Broken,
            ),
        ] {
            let refused = algorithms(&format!("{ec}{second}"));
            assert_eq!(refused, Err((2, problem)), "{second}");
        }
    }

    #[test]
    fn regression_a_key_in_an_unusual_envelope_is_refused() {
        let block = |der: &[u8]| pem::encode(&pem::Pem::new("PUBLIC KEY", der));
        let der = |kind| pem::parse(pem(kind).0).unwrap().into_contents();
        let [ec, ed, rsa] = [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_RSA_SHA256,
        ]
        .map(der);
        // `30 82 len len 30 0d 06 09 name 05 00`: for PSS alone, the name ends with 10, and nothing follows it.
        let mut pss = rsa.clone();
        assert_eq!(pss[4..8], [0x30, 0x0d, 0x06, 0x09]);
        assert_eq!(pss[16..19], [0x01, 0x05, 0x00]);
        pss[16] = 0x0a;
        pss.drain(17..19);
        pss[3] -= 2;
        pss[5] -= 2;
        let bare = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        for wrong in [
            [&ec[..], &[0]].concat(),
            [&ed[..], &[0]].concat(),
            [&ed[..], &ed].concat(),
            [&rsa[..], &[0]].concat(),
            ec[26..].to_vec(),
            ed[12..].to_vec(),
            bare.public_key().as_ref().to_vec(),
            pss,
            vec![],
        ] {
            assert_eq!(algorithms(&block(&wrong)), Err((1, UnusableKey::Broken)));
        }
        for right in [ec, ed, rsa] {
            assert_eq!(algorithms(&block(&right)).unwrap().len(), 1);
        }
    }

    #[test]
    fn regression_an_rsa_key_that_is_too_small_is_refused() {
        // 1024 bits: a modulus that is odd, and the usual exponent.
        let mut der = vec![0x30, 0x81, 0x89, 0x02, 0x81, 0x81, 0x00];
        der.extend([0xff; 128]);
        der.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
        let pem = |der: &[u8]| {
            let text = BASE64_STANDARD.encode(der);
            format!("-----BEGIN RSA PUBLIC KEY-----\n{text}\n-----END RSA PUBLIC KEY-----\n")
        };
        let small = algorithms(&pem(&der));
        assert_eq!(small, Err((1, UnusableKey::Size { bits: 1024 })));
        let large = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let large = algorithms(&pem(large.public_key().as_ref()));
        assert_eq!(large, Ok(vec![Algorithm::RS256]));
    }
}
