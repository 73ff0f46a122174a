use super::*;

pub(super) const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";

#[test]
fn the_published_vector_of_a_key_pair_holds() {
    let key = PrivateKey::parse("whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==").unwrap();
    let public = PublicKey::parse(PUBLIC).unwrap();
    let (id, now) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", at(1_614_265_330));
    let body = br#"{"test": 2432232314}"#;
    let mut headers = HeaderMap::new();
    StandardSigner::from_private_key(key).sign(id, now, body, &mut headers);
    assert_eq!(
        headers[WEBHOOK_SIGNATURE],
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
    );
    let verified = Verifier::from_public_key(public).verify(&headers, body, now);
    assert_eq!(verified.unwrap().id, id);
}

#[test]
fn a_secret_and_key_pairs_sign_at_once_and_each_is_accepted_alone() {
    let (current, old) = (PrivateKey::generate(), PrivateKey::generate());
    let signer = StandardSigner::new([secret(NEW)])
        .unwrap()
        .with_private_key(current.clone())
        .with_private_key(old.clone());
    let mut headers = HeaderMap::new();
    signer.sign(ID, at(NOW), b"x", &mut headers);
    let signatures = headers[WEBHOOK_SIGNATURE].to_str().unwrap();
    let versions: Vec<_> = signatures
        .split(' ')
        .map(|s| s.split_once(',').unwrap().0)
        .collect();
    assert_eq!(versions, ["v1", "v1a", "v1a"]);
    for verifier in [
        Verifier::new(secret(NEW)),
        Verifier::from_public_key(current.public_key()),
        Verifier::from_public_key(old.public_key()),
        Verifier::new(secret(OLD)).with_public_key(old.public_key()),
    ] {
        assert!(verifier.verify(&headers, b"x", at(NOW)).is_ok());
    }
    let stranger = PrivateKey::generate().public_key();
    let verifier = Verifier::new(secret(OLD)).with_public_key(stranger);
    assert_eq!(
        verifier.verify(&headers, b"x", at(NOW)),
        Err(VerifyError::NoMatch)
    );
}

#[test]
fn a_signature_of_one_version_is_not_taken_for_one_of_the_other() {
    let key = PrivateKey::generate();
    let mut headers = HeaderMap::new();
    StandardSigner::from_private_key(key.clone()).sign(ID, at(NOW), b"x", &mut headers);
    let verifier = Verifier::from_public_key(key.public_key()).with_secret(secret(NEW));
    assert!(verifier.verify(&headers, b"x", at(NOW)).is_ok());
    let renamed = headers[WEBHOOK_SIGNATURE]
        .to_str()
        .unwrap()
        .replace("v1a,", "v1,");
    headers.insert(WEBHOOK_SIGNATURE, renamed.parse().unwrap());
    assert_eq!(
        verifier.verify(&headers, b"x", at(NOW)),
        Err(VerifyError::NoMatch)
    );
}

#[test]
fn only_so_many_signatures_of_key_pairs_are_tried() {
    let key = PrivateKey::generate();
    let genuine = StandardSigner::from_private_key(key.clone()).signature(ID, at(NOW), b"x");
    let mut headers = signed(&[NEW], b"x");
    let verifier = Verifier::from_public_key(key.public_key());
    let forged = format!("v1a,{} ", BASE64.encode([1; 64]));
    for (forgeries, accepted) in [
        (MAX_ASYMMETRIC_SIGNATURES - 1, true),
        (MAX_ASYMMETRIC_SIGNATURES, false),
    ] {
        let signatures = forged.repeat(forgeries) + &genuine;
        headers.insert(WEBHOOK_SIGNATURE, signatures.parse().unwrap());
        assert_eq!(verifier.verify(&headers, b"x", at(NOW)).is_ok(), accepted);
    }
}

proptest! {
    // Each case takes a millisecond or more without optimization.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_a_key_pair_signs_verifies_and_any_changed_byte_does_not(
        body in prop::collection::vec(any::<u8>(), 1..200),
        at_byte in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let key = PrivateKey::generate();
        let mut headers = HeaderMap::new();
        StandardSigner::from_private_key(key.clone()).sign(ID, at(NOW), &body, &mut headers);
        let verifier = Verifier::from_public_key(key.public_key());
        prop_assert!(verifier.verify(&headers, &body, at(NOW)).is_ok());

        let mut changed = body.clone();
        changed[at_byte.index(body.len())] ^= flip;
        prop_assert_eq!(verifier.verify(&headers, &changed, at(NOW)), Err(VerifyError::NoMatch));

        let encoded = headers[WEBHOOK_SIGNATURE].to_str().unwrap().strip_prefix("v1a,").unwrap();
        let mut signature = BASE64.decode(encoded).unwrap();
        signature[at_byte.index(64)] ^= flip;
        let mut forged = headers.clone();
        let value = format!("v1a,{}", BASE64.encode(signature));
        forged.insert(WEBHOOK_SIGNATURE, value.parse().unwrap());
        prop_assert_eq!(verifier.verify(&forged, &body, at(NOW)), Err(VerifyError::NoMatch));

        headers.insert(WEBHOOK_TIMESTAMP, (NOW + 1).into());
        prop_assert_eq!(verifier.verify(&headers, &body, at(NOW)), Err(VerifyError::NoMatch));
    }
}
