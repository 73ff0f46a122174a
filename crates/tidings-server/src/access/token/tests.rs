use std::time::Duration;

use jsonwebtoken::EncodingKey;
use rcgen::{KeyPair, SignatureAlgorithm};
use serde_json::json;
use tidings_test_support::{Log, Panics};

use super::*;
use crate::access::jwks::Pace;
use crate::access::key_file;
use crate::settings::jwt::JwksSource;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn tokens(keys: Vec<VerificationKey>) -> Tokens {
    Tokens {
        keys,
        jwks: None,
        issuer: None,
        audience: None,
    }
}

fn with_secret() -> Tokens {
    let secret = SECRET.parse().unwrap();
    tokens(vec![VerificationKey::of_secret(&secret)])
}

/// Seconds since 1970, so many from now.
fn in_seconds(seconds: i64) -> i64 {
    Timestamp::now().as_second() + seconds
}

/// Claims of anna, with these changes; `null` removes one.
fn claims(changes: &Value) -> Value {
    let mut claims = json!({ "sub": "anna", "exp": in_seconds(60) });
    let fields = claims.as_object_mut().unwrap();
    fields.extend(changes.as_object().unwrap().clone());
    fields.retain(|_, value| !value.is_null());
    claims
}

fn base64(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

/// A token with this header, signed by HS256 whatever the header says.
fn raw(header: &str, claims: &str, secret: &[u8]) -> String {
    let message = format!("{}.{}", base64(header), base64(claims));
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    format!("{message}.{}", signature.unwrap())
}

fn hs256(claims: &Value) -> String {
    raw(
        r#"{"alg":"HS256","typ":"JWT"}"#,
        &claims.to_string(),
        SECRET.as_bytes(),
    )
}

/// A key pair, and how it signs.
struct Signer {
    algorithm: Algorithm,
    pair: KeyPair,
}

impl Signer {
    fn new(algorithm: Algorithm) -> Self {
        let kind: &'static SignatureAlgorithm = match algorithm {
            Algorithm::RS256 => &rcgen::PKCS_RSA_SHA256,
            Algorithm::ES256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            _ => &rcgen::PKCS_ED25519,
        };
        let pair = KeyPair::generate_for(kind).unwrap();
        Self { algorithm, pair }
    }

    fn sign(&self, id: Option<&str>, claims: &Value) -> String {
        let pem = self.pair.serialize_pem();
        let key = match self.algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
            Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
            _ => EncodingKey::from_ed_pem(pem.as_bytes()),
        };
        let mut header = jsonwebtoken::Header::new(self.algorithm);
        header.kid = id.map(str::to_owned);
        jsonwebtoken::encode(&header, claims, &key.unwrap()).unwrap()
    }

    fn verification_key(&self) -> VerificationKey {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), self.pair.public_key_pem()).unwrap();
        key_file::read(file.path()).unwrap().remove(0)
    }

    /// The public key of Ed25519 as an entry of a key set.
    fn jwk(&self, id: &str) -> Value {
        let x = BASE64_URL_SAFE_NO_PAD.encode(self.pair.public_key_raw());
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": x })
    }
}

#[tokio::test]
async fn a_valid_token_says_whose_it_is_and_until_when() {
    let exp = in_seconds(60);
    let token = hs256(&json!({ "sub": "anna", "exp": exp, "endpoints": true, "more": [1] }));
    let token = with_secret().verify(&token).await.unwrap();
    assert_eq!(token.user.as_str(), "anna");
    assert_eq!(token.expires_at.as_second(), exp + 5);
    assert!(token.has_endpoints);
    for other in [json!(false), json!("true"), json!(1), json!(null)] {
        let token = hs256(&claims(&json!({ "endpoints": other })));
        assert!(!with_secret().verify(&token).await.unwrap().has_endpoints);
    }
    let far = hs256(&claims(&json!({ "exp": 99_999_999_999_i64 })));
    let far = with_secret().verify(&far).await.unwrap();
    assert_eq!(far.expires_at.as_second(), 100_000_000_004);
}

#[tokio::test]
async fn every_algorithm_verifies_its_own_tokens_alone() {
    let signers = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA].map(Signer::new);
    let strangers = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA].map(Signer::new);
    let all = tokens(signers.iter().map(Signer::verification_key).collect());
    for (signer, stranger) in signers.iter().zip(&strangers) {
        let token = signer.sign(None, &claims(&json!({})));
        all.verify(&token).await.unwrap();
        let forged = stranger.sign(None, &claims(&json!({})));
        assert_eq!(all.verify(&forged).await, Err(TokenRule::WrongSignature));
        let only_secret = with_secret().verify(&token).await;
        assert_eq!(only_secret, Err(TokenRule::WrongAlgorithm));
        let others = signers
            .iter()
            .filter(|other| other.algorithm != signer.algorithm);
        let others = tokens(others.map(Signer::verification_key).collect());
        assert_eq!(others.verify(&token).await, Err(TokenRule::WrongAlgorithm));
    }
}

/// The classic attack: a public key, which everyone knows, as the secret of HS256.
#[tokio::test]
async fn a_public_key_is_never_a_secret() {
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let signer = Signer::new(algorithm);
        let pem = signer.pair.public_key_pem();
        let secrets = [
            pem.as_bytes(),
            pem.trim_end().as_bytes(),
            signer.pair.public_key_raw(),
        ];
        for secret in secrets {
            let forged = raw(
                r#"{"alg":"HS256"}"#,
                &claims(&json!({})).to_string(),
                secret,
            );
            let only_public = tokens(vec![signer.verification_key()]);
            assert_eq!(
                only_public.verify(&forged).await,
                Err(TokenRule::WrongAlgorithm)
            );
            let mut both = with_secret();
            both.keys.push(signer.verification_key());
            assert_eq!(both.verify(&forged).await, Err(TokenRule::WrongSignature));
            // The signature of HS256, called one of the public key.
            let header = format!(r#"{{"alg":"{algorithm:?}"}}"#);
            let forged = raw(&header, &claims(&json!({})).to_string(), secret);
            assert_eq!(both.verify(&forged).await, Err(TokenRule::WrongSignature));
        }
    }
}

#[tokio::test]
async fn each_wrong_header_is_refused_by_its_rule() {
    let good = claims(&json!({})).to_string();
    for (header, rule) in [
        (r#"{"alg":"none"}"#, TokenRule::Unsigned),
        (r#"{"alg":"NoNe"}"#, TokenRule::Unsigned),
        (r#"{"alg":"HS512"}"#, TokenRule::UnsupportedAlgorithm),
        (r#"{"alg":"RS512"}"#, TokenRule::UnsupportedAlgorithm),
        (r#"{"alg":"hs256"}"#, TokenRule::UnsupportedAlgorithm),
        (r#"{"alg":""}"#, TokenRule::UnsupportedAlgorithm),
        (r#"{"alg":"RS256"}"#, TokenRule::WrongAlgorithm),
        (r#"{"alg":"HS256","crit":["exp"]}"#, TokenRule::Critical),
        (r#"{"typ":"JWT"}"#, TokenRule::Malformed),
        (r#"{"alg":1}"#, TokenRule::Malformed),
        (r#"{"alg":"none","alg":"HS256"}"#, TokenRule::Malformed),
        (r#"["HS256"]"#, TokenRule::Malformed),
        ("", TokenRule::Malformed),
    ] {
        let token = raw(header, &good, SECRET.as_bytes());
        assert_eq!(with_secret().verify(&token).await, Err(rule), "{header}");
    }
}

#[tokio::test]
async fn each_wrong_claim_is_refused_by_its_rule() {
    for (changes, rule) in [
        (json!({ "exp": in_seconds(-10) }), TokenRule::Expired),
        (json!({ "exp": 0 }), TokenRule::Expired),
        (json!({ "exp": null }), TokenRule::NoExpiry),
        (json!({ "exp": "2099-01-01" }), TokenRule::NoExpiry),
        (json!({ "exp": -1 }), TokenRule::Expired),
        (json!({ "exp": -0.5 }), TokenRule::Expired),
        (json!({ "exp": -1e300 }), TokenRule::Expired),
        (json!({ "exp": 1e300 }), TokenRule::ExpiryInMilliseconds),
        (json!({ "exp": true }), TokenRule::NoExpiry),
        (json!({ "nbf": in_seconds(20) }), TokenRule::NotYetValid),
        (json!({ "nbf": "soon" }), TokenRule::NotYetValid),
        (json!({ "nbf": [] }), TokenRule::NotYetValid),
        (json!({ "nbf": {} }), TokenRule::NotYetValid),
        (json!({ "nbf": true }), TokenRule::NotYetValid),
        (json!({ "exp": [] }), TokenRule::NoExpiry),
        (json!({ "exp": {} }), TokenRule::NoExpiry),
        (json!({ "sub": ["anna"] }), TokenRule::Malformed),
        (json!({ "sub": {} }), TokenRule::Malformed),
        (json!({ "sub": null }), TokenRule::NoSubject),
        (json!({ "sub": 17 }), TokenRule::NoSubject),
        (json!({ "sub": "" }), TokenRule::InvalidSubject),
        (json!({ "sub": ".." }), TokenRule::InvalidSubject),
        (json!({ "sub": " anna" }), TokenRule::InvalidSubject),
        (json!({ "sub": "x".repeat(256) }), TokenRule::InvalidSubject),
        (
            json!({ "exp": in_seconds(60) * 1000 }),
            TokenRule::ExpiryInMilliseconds,
        ),
        (json!({ "exp": 1e18 }), TokenRule::ExpiryInMilliseconds),
        // It is for another service.
        (json!({ "aud": "billing" }), TokenRule::UnexpectedAudience),
        (json!({ "aud": [5] }), TokenRule::UnexpectedAudience),
    ] {
        let token = hs256(&claims(&changes));
        assert_eq!(with_secret().verify(&token).await, Err(rule), "{changes}");
    }
    for changes in [
        json!({ "exp": in_seconds(-3) }),
        json!({ "nbf": in_seconds(3) }),
        json!({ "iss": "elsewhere" }),
    ] {
        let token = hs256(&claims(&changes));
        with_secret().verify(&token).await.unwrap();
    }
    let twice = r#"{"sub":"anna","sub":"ben","exp":9999999999}"#;
    let twice = raw(r#"{"alg":"HS256"}"#, twice, SECRET.as_bytes());
    assert_eq!(
        with_secret().verify(&twice).await,
        Err(TokenRule::Malformed)
    );
}

#[tokio::test]
async fn issuer_and_audience_are_demanded_if_they_are_configured() {
    let strict = Tokens {
        issuer: Some("https://id.example.com".to_owned()),
        audience: Some("tidings".to_owned()),
        ..with_secret()
    };
    let good = json!({ "iss": "https://id.example.com", "aud": "tidings" });
    for (changes, rule) in [
        (json!({}), None),
        (json!({ "aud": ["billing", "tidings"] }), None),
        (
            json!({ "iss": "https://id.example.com/" }),
            Some(TokenRule::WrongIssuer),
        ),
        (json!({ "iss": null }), Some(TokenRule::WrongIssuer)),
        (json!({ "iss": 1 }), Some(TokenRule::WrongIssuer)),
        (json!({ "aud": "billing" }), Some(TokenRule::WrongAudience)),
        (json!({ "aud": [] }), Some(TokenRule::WrongAudience)),
        (json!({ "aud": null }), Some(TokenRule::WrongAudience)),
        (
            json!({ "iss": ["elsewhere"] }),
            Some(TokenRule::WrongIssuer),
        ),
        (
            json!({ "iss": ["https://id.example.com"] }),
            Some(TokenRule::WrongIssuer),
        ),
    ] {
        let mut all = claims(&good);
        let fields = all.as_object_mut().unwrap();
        fields.extend(changes.as_object().unwrap().clone());
        fields.retain(|_, value| !value.is_null());
        let refused = strict.verify(&hs256(&all)).await.err();
        assert_eq!(refused, rule, "{changes}");
    }
}

#[tokio::test]
async fn regression_an_audience_of_any_type_is_for_another_service() {
    let strict = Tokens {
        audience: Some("tidings".to_owned()),
        ..with_secret()
    };
    for audience in [
        r#""""#,
        r#""billing""#,
        "[]",
        "[5]",
        r#"["tidings",5]"#,
        r#"[["tidings"]]"#,
        "{}",
        r#"{"tidings":"tidings"}"#,
        "5",
        "true",
        "false",
    ] {
        let claims = format!(r#"{{"sub":"anna","exp":9999999999,"aud":{audience}}}"#);
        let token = raw(r#"{"alg":"HS256"}"#, &claims, SECRET.as_bytes());
        let refused = with_secret().verify(&token).await;
        assert_eq!(refused, Err(TokenRule::UnexpectedAudience), "{audience}");
        let refused = strict.verify(&token).await;
        assert_eq!(refused, Err(TokenRule::WrongAudience), "{audience}");
    }
    let none = raw(
        r#"{"alg":"HS256"}"#,
        r#"{"sub":"anna","exp":9999999999,"aud":null}"#,
        SECRET.as_bytes(),
    );
    with_secret().verify(&none).await.unwrap();
    assert_eq!(strict.verify(&none).await, Err(TokenRule::WrongAudience));
}

#[tokio::test]
async fn what_is_no_token_or_was_changed_is_refused() {
    let tokens = with_secret();
    let token = hs256(&claims(&json!({})));
    let parts: Vec<_> = token.split('.').collect();
    let [header, body, signature] = parts[..] else {
        panic!("expected three parts")
    };
    let other = base64(&claims(&json!({ "sub": "ben" })).to_string());
    for changed in [
        format!("{header}.{other}.{signature}"),
        format!("{header}.{body}."),
        format!("{header}.{body}.{}", base64("x")),
        raw(
            r#"{"alg":"HS256"}"#,
            &claims(&json!({})).to_string(),
            &[b'x'; 32],
        ),
    ] {
        assert_eq!(
            tokens.verify(&changed).await,
            Err(TokenRule::WrongSignature),
            "{changed}"
        );
    }
    for text in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        &token[1..],
        header,
        &format!("{token}.x"),
    ] {
        let refused = tokens.verify(text).await;
        assert!(
            matches!(
                refused,
                Err(TokenRule::Malformed | TokenRule::WrongSignature)
            ),
            "{text}: {refused:?}"
        );
    }
    let long = hs256(&claims(&json!({ "padding": "x".repeat(MAX_BYTES) })));
    assert_eq!(tokens.verify(&long).await, Err(TokenRule::TooLong));
}

/// A key set in a file, whose keys are loaded by the task that a server runs.
struct KeySet {
    file: tempfile::NamedTempFile,
    tokens: Tokens,
}

impl KeySet {
    fn of(keys: &[Value], pace: Pace) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let source = JwksSource::File(file.path().to_owned());
        let mut tokens = tokens(Vec::new());
        tokens.jwks = Some(Jwks::new(source, pace).unwrap());
        let set = Self { file, tokens };
        set.write(keys);
        set
    }

    fn write(&self, keys: &[Value]) {
        let text = json!({ "keys": keys }).to_string();
        std::fs::write(self.file.path(), text).unwrap();
    }

    fn jwks(&self) -> &Jwks {
        self.tokens.jwks.as_ref().unwrap()
    }
}

fn pace(at_most_every: Duration) -> Pace {
    Pace {
        every: Duration::from_secs(3600),
        at_most_every,
    }
}

#[tokio::test]
async fn a_key_that_is_new_in_the_key_set_is_found_and_one_that_is_gone_forgotten() {
    let [first, second] = [(); 2].map(|()| Signer::new(Algorithm::EdDSA));
    let set = KeySet::of(&[first.jwk("1")], pace(Duration::ZERO));
    let verify = async |signer: &Signer, id| {
        let token = signer.sign(id, &claims(&json!({})));
        set.tokens.verify(&token).await.map(drop)
    };
    let test = async {
        set.jwks().load().await.unwrap();
        verify(&first, Some("1")).await.unwrap();
        verify(&first, None).await.unwrap();
        assert_eq!(verify(&second, Some("2")).await, Err(TokenRule::UnknownKey));
        set.write(&[second.jwk("2")]);
        verify(&second, Some("2")).await.unwrap();
        assert_eq!(verify(&first, Some("1")).await, Err(TokenRule::UnknownKey));
        // A set that cannot be read leaves the keys as they were.
        std::fs::write(set.file.path(), "{").unwrap();
        assert_eq!(verify(&first, Some("1")).await, Err(TokenRule::UnknownKey));
        verify(&second, Some("2")).await.unwrap();
    };
    tokio::select! {
        () = test => {}
        () = set.jwks().run() => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_withdrawn_is_forgotten_although_no_token_asks_for_another() {
    let [first, second] = [(); 2].map(|()| Signer::new(Algorithm::EdDSA));
    let set = KeySet::of(&[first.jwk("1")], Pace::default());
    let token = first.sign(Some("1"), &claims(&json!({})));
    let test = async {
        set.jwks().load().await.unwrap();
        set.tokens.verify(&token).await.unwrap();
        set.write(&[second.jwk("2")]);
        let mut seconds = 0;
        while set.tokens.verify(&token).await.is_ok() {
            // Past two periods it is too late.
            assert!(seconds < 600, "the key set is not loaded again");
            tokio::time::sleep(Duration::from_secs(1)).await;
            seconds += 1;
        }
    };
    tokio::select! {
        () = test => {}
        () = set.jwks().run() => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_found_although_one_without_an_id_has_the_same_algorithm() {
    let [first, second, third] = [(); 3].map(|()| Signer::new(Algorithm::EdDSA));
    let mut unnamed = first.jwk("1");
    unnamed.as_object_mut().unwrap().remove("kid");
    let set = KeySet::of(&[unnamed.clone()], Pace::default());
    let verify = async |signer: &Signer, id| {
        let token = signer.sign(Some(id), &claims(&json!({})));
        set.tokens.verify(&token).await.map(drop)
    };
    let test = async {
        set.jwks().load().await.unwrap();
        set.write(&[unnamed, second.jwk("2")]);
        tokio::time::sleep(Pace::default().at_most_every).await;
        // A token that is valid loads nothing.
        verify(&first, "1").await.unwrap();
        assert_eq!(set.jwks().keys().unwrap().len(), 1);
        verify(&second, "2").await.unwrap();
        verify(&first, "1").await.unwrap();
        // Nor does one that names a known key.
        tokio::time::sleep(Pace::default().at_most_every).await;
        set.write(&[second.jwk("2")]);
        assert_eq!(verify(&third, "2").await, Err(TokenRule::WrongSignature));
        assert_eq!(set.jwks().keys().unwrap().len(), 2);
    };
    tokio::select! {
        () = test => {}
        () = set.jwks().run() => {}
    }
}

#[tokio::test]
async fn unknown_keys_do_not_load_the_key_set_again_and_again() {
    let signer = Signer::new(Algorithm::EdDSA);
    let set = KeySet::of(&[signer.jwk("1")], pace(Duration::from_secs(3600)));
    let test = async {
        set.jwks().load().await.unwrap();
        set.write(&[signer.jwk("2")]);
        let token = signer.sign(Some("2"), &claims(&json!({})));
        for _ in 0..100 {
            let refused = set.tokens.verify(&token).await;
            assert_eq!(refused, Err(TokenRule::UnknownKey));
        }
        let known = signer.sign(Some("1"), &claims(&json!({})));
        set.tokens.verify(&known).await.unwrap();
    };
    tokio::select! {
        () = test => {}
        () = set.jwks().run() => {}
    }
}

#[tokio::test]
async fn while_no_key_set_was_loaded_the_token_is_not_blamed() {
    let signer = Signer::new(Algorithm::EdDSA);
    let set = KeySet::of(&[], pace(Duration::from_secs(3600)));
    set.jwks().load().await.unwrap_err();
    let token = signer.sign(None, &claims(&json!({})));
    assert_eq!(set.tokens.verify(&token).await, Err(TokenRule::NoKeys));
    // No key set has secrets.
    let token = hs256(&claims(&json!({})));
    assert_eq!(
        set.tokens.verify(&token).await,
        Err(TokenRule::WrongAlgorithm)
    );
}

#[tokio::test(start_paused = true)]
async fn regression_a_key_set_is_loaded_although_a_tracing_layer_panics() {
    let [first, second] = [(); 2].map(|()| Signer::new(Algorithm::EdDSA));
    let set = KeySet::of(&[first.jwk("1")], Pace::default());
    set.jwks().load().await.unwrap();
    let layer = Panics::at("tidings_server");
    let _tracing = tidings_test_support::set_default(layer.clone());
    let logged = async |count| {
        while layer.count() < count {
            tokio::time::sleep(Pace::default().every).await;
        }
    };
    let outages = async {
        std::fs::write(set.file.path(), "{").unwrap();
        logged(1).await;
        set.write(&[first.jwk("1")]);
        logged(2).await;
        // One is of a kind that is not known, which is logged.
        set.write(&[
            json!({ "kty": "AKP", "kid": "3", "alg": "ML-DSA-44", "pub": "AAAA" }),
            second.jwk("2"),
        ]);
        logged(3).await;
        let token = second.sign(Some("2"), &claims(&json!({})));
        set.tokens.verify(&token).await.unwrap();
    };
    tokio::select! {
        () = outages => {}
        () = set.jwks().run() => {}
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_key_set_is_one_line_and_so_is_its_end() {
    let log = Log::default();
    let _listening = log.listen();
    let signer = Signer::new(Algorithm::EdDSA);
    let set = KeySet::of(&[signer.jwk("1")], Pace::default());
    set.jwks().load().await.unwrap();
    let outages = async {
        for outage in 1..=2 {
            std::fs::write(set.file.path(), "{").unwrap();
            tokio::time::sleep(Pace::default().every * 10).await;
            let begun = log.lines("cannot load the keys for tokens");
            assert_eq!(begun.len(), outage, "{begun:?}");
            set.write(&[signer.jwk("1")]);
            tokio::time::sleep(Pace::default().every * 10).await;
            let ended = log.lines("loaded the keys for tokens");
            assert_eq!(ended.len(), outage, "{ended:?}");
        }
    };
    tokio::select! {
        () = outages => {}
        () = set.jwks().run() => {}
    }
}

#[tokio::test]
async fn keys_of_unknown_kinds_are_one_line_until_they_change() {
    let log = Log::default();
    let _listening = log.listen();
    let known = Signer::new(Algorithm::EdDSA).jwk("1");
    let unknown = |id: &str| json!({ "kty": "AKP", "kid": id, "alg": "ML-DSA-44", "pub": "AAAA" });
    let set = KeySet::of(&[], Pace::default());
    let mut lines = 0;
    for id in ["first", "second"] {
        set.write(&[known.clone(), unknown(id)]);
        for _ in 0..3 {
            set.jwks().load().await.unwrap();
        }
        lines += 1;
        let warned = log.lines("is not supported");
        assert_eq!(warned.len(), lines, "{warned:?}");
        assert!(warned[lines - 1].contains(id), "{warned:?}");
    }
}
