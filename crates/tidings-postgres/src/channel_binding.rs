//! What a login is bound to: the hash of the server's certificate,
//! [`tls-server-end-point`](https://www.rfc-editor.org/rfc/rfc5929#section-4).

use sha2::{Digest, Sha256, Sha384, Sha512};

/// Signature algorithms by the contents of their object identifiers in DER.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];

/// The hash of a certificate in DER. `None` if the algorithm of its signature has none of its own, such
/// as Ed25519, or has parameters, such as RSA-PSS.
pub(crate) fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = signature_algorithm(certificate)?;
    let rsa = algorithm.strip_prefix(RSA);
    let ecdsa = algorithm.strip_prefix(ECDSA);
    // MD5 and SHA-1 are replaced by SHA-256.
    let hash = match (rsa, ecdsa) {
        (Some([0x04 | 0x05 | 0x0b]), _) | (_, Some([0x01] | [0x03, 0x02])) => {
            Sha256::digest(certificate).to_vec()
        }
        (Some([0x0c]), _) | (_, Some([0x03, 0x03])) => Sha384::digest(certificate).to_vec(),
        (Some([0x0d]), _) | (_, Some([0x03, 0x04])) => Sha512::digest(certificate).to_vec(),
        _ => return None,
    };
    Some(hash)
}

/// The object identifier of the algorithm that a certificate is signed with.
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = element(certificate)?;
    let (_signed, rest) = element(certificate)?;
    let (algorithm, _) = element(rest)?;
    let (identifier, _) = element(algorithm)?;
    Some(identifier)
}

/// The contents of the first element, and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let [_tag, length, rest @ ..] = der else {
        return None;
    };
    let (length, rest) = if *length < 0x80 {
        (usize::from(*length), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        let length = bytes.iter().try_fold(0_usize, |length, byte| {
            length.checked_mul(256)?.checked_add(usize::from(*byte))
        })?;
        (length, rest)
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate of three parts, the first of which is longer than a byte can say.
    fn certificate(identifier: &[u8]) -> Vec<u8> {
        let mut body = vec![0x30, 0x82, 0x01, 0x00];
        body.extend([0; 256]);
        let length = u8::try_from(identifier.len()).unwrap();
        body.extend([0x30, length + 4, 0x06, length]);
        body.extend(identifier);
        body.extend([0x05, 0x00, 0x03, 0x02, 0x00, 0x01]);
        let mut certificate = vec![0x30, 0x82];
        certificate.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        certificate.extend(body);
        certificate
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        for (prefix, last, length) in [
            (RSA, &[0x04][..], 32),
            (RSA, &[0x05], 32),
            (RSA, &[0x0b], 32),
            (RSA, &[0x0c], 48),
            (RSA, &[0x0d], 64),
            (ECDSA, &[0x01], 32),
            (ECDSA, &[0x03, 0x02], 32),
            (ECDSA, &[0x03, 0x03], 48),
            (ECDSA, &[0x03, 0x04], 64),
        ] {
            let hash = server_end_point(&certificate(&[prefix, last].concat()));
            assert_eq!(hash.map(|hash| hash.len()), Some(length), "{last:?}");
        }
        let pss = [RSA, &[0x0a]].concat();
        assert_eq!(server_end_point(&certificate(&pss)), None);
        let ed25519 = [0x2b, 0x65, 0x70];
        assert_eq!(server_end_point(&certificate(&ed25519)), None);
    }

    #[test]
    fn what_is_no_certificate_has_no_hash() {
        let whole = certificate(&[RSA, &[0x0b]].concat());
        for end in 0..270 {
            assert_eq!(server_end_point(&whole[..end]), None, "{end}");
        }
        assert_eq!(server_end_point(&[0x30, 0xff, 0xff]), None);
        assert_eq!(server_end_point(&[0x30; 64]), None);
    }
}
