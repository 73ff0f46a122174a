//! Tokens of users: JSON Web Tokens, verified by RFC 7519 and RFC 8725.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde_json::Value;
use tidings_notify::UserId;

use super::jwks::Jwks;
use super::verification_keys::VerificationKey;

/// The longest token: it must fit into the head of a request, beside other headers.
const MAX_BYTES: usize = 8 * 1024;

/// The first `exp` that cannot be meant as seconds: it is after the year 5000.
const MILLISECONDS: f64 = 1e11;

/// How far the clock of the issuer may be from ours.
const LEEWAY: SignedDuration = SignedDuration::from_secs(5);

/// What a valid token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// Whose it is (`sub`).
    pub(crate) user: UserId,
    /// Until when the server accepts it: `exp` and the leeway.
    pub(crate) expires_at: Timestamp,
    /// Whether the user may use their endpoints (`endpoints`).
    pub(crate) has_endpoints: bool,
}

/// The rule by which a token is refused. Nothing of the token is in its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenRule {
    #[error("the token is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("the token is not a JSON Web Token")]
    Malformed,
    #[error("the token is not signed (alg is none)")]
    Unsigned,
    #[error("the alg of the token is not HS256, RS256, ES256 or EdDSA")]
    UnsupportedAlgorithm,
    #[error("the server has no key for the alg of the token")]
    WrongAlgorithm,
    #[error("the token has a crit header")]
    Critical,
    #[error("the server has no key with the kid of the token")]
    UnknownKey,
    #[error("the server could not load the keys for tokens")]
    NoKeys,
    #[error("the signature of the token is wrong")]
    WrongSignature,
    #[error("the token has no exp that is a number")]
    NoExpiry,
    #[error(
        "the exp of the token is after the year 5000; expected seconds since 1970, not milliseconds"
    )]
    ExpiryInMilliseconds,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet (nbf)")]
    NotYetValid,
    #[error("the token has another iss than --jwt-issuer, or none")]
    WrongIssuer,
    #[error("the token has another aud than --jwt-audience, or none")]
    WrongAudience,
    #[error("the token has an aud, and the server has no --jwt-audience")]
    UnexpectedAudience,
    #[error("the token has no sub that is a string")]
    NoSubject,
    #[error("the sub of the token is not the id of a user")]
    InvalidSubject,
}

/// Verifies tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(super) keys: Vec<VerificationKey>,
    pub(super) jwks: Option<Jwks>,
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
}

/// The part of the header that decides how the token is verified.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// The claims, of any type: the rule that a wrong one breaks is for this module to find.
#[derive(Deserialize)]
struct Claims {
    iss: Option<Value>,
    aud: Option<Value>,
    sub: Option<Value>,
    exp: Option<Value>,
    endpoints: Option<Value>,
}

impl Tokens {
    pub(crate) async fn verify(&self, token: &str) -> Result<Token, TokenRule> {
        if token.len() > MAX_BYTES {
            return Err(TokenRule::TooLong);
        }
        let header = Header::read(token).ok_or(TokenRule::Malformed)?;
        let algorithm = header.algorithm()?;
        let id = header.kid.as_deref();
        let verified = self.verify_by_known_keys(token, algorithm, id);
        let Some(jwks) = &self.jwks else {
            return verified;
        };
        let may_be_of_a_new_key = match &verified {
            // Secrets are in no key set.
            _ if algorithm == Algorithm::HS256 => false,
            Err(TokenRule::UnknownKey | TokenRule::WrongAlgorithm | TokenRule::NoKeys) => true,
            // It was tried with keys that have no id.
            Err(TokenRule::WrongSignature) => {
                let tried = self.matching(algorithm, id);
                id.is_some() && tried.iter().all(|key| key.id() != id)
            }
            _ => false,
        };
        if !may_be_of_a_new_key {
            return verified;
        }
        jwks.refresh().await;
        self.verify_by_known_keys(token, algorithm, id)
    }

    fn verify_by_known_keys(
        &self,
        token: &str,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> Result<Token, TokenRule> {
        let keys = self.or_why_none(self.matching(algorithm, id), algorithm)?;
        let validation = validation(algorithm);
        for key in &keys {
            match jsonwebtoken::decode::<Claims>(token, key.key(), &validation) {
                Ok(decoded) => {
                    self.check_issuer(decoded.claims.iss.as_ref())?;
                    self.check_audience(decoded.claims.aud.as_ref())?;
                    return decoded.claims.check();
                }
                Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {}
                Err(error) => return Err(TokenRule::of(error.kind())),
            }
        }
        Err(TokenRule::WrongSignature)
    }

    fn matching(&self, algorithm: Algorithm, id: Option<&str>) -> Vec<VerificationKey> {
        let loaded = self.loaded();
        let keys = self
            .keys
            .iter()
            .chain(loaded.iter().flat_map(|keys| keys.iter()));
        keys.filter(|key| key.matches(algorithm, id))
            .cloned()
            .collect()
    }

    fn loaded(&self) -> Option<std::sync::Arc<[VerificationKey]>> {
        self.jwks.as_ref().and_then(Jwks::keys)
    }

    fn or_why_none(
        &self,
        found: Vec<VerificationKey>,
        algorithm: Algorithm,
    ) -> Result<Vec<VerificationKey>, TokenRule> {
        if !found.is_empty() {
            return Ok(found);
        }
        let loaded = self.loaded();
        if self.jwks.is_some() && loaded.is_none() && algorithm != Algorithm::HS256 {
            return Err(TokenRule::NoKeys);
        }
        let mut keys = self
            .keys
            .iter()
            .chain(loaded.iter().flat_map(|keys| keys.iter()));
        if keys.any(|key| key.algorithm() == algorithm) {
            Err(TokenRule::UnknownKey)
        } else {
            Err(TokenRule::WrongAlgorithm)
        }
    }

    fn check_issuer(&self, sent: Option<&Value>) -> Result<(), TokenRule> {
        match &self.issuer {
            Some(issuer) if sent.and_then(Value::as_str) != Some(issuer) => {
                Err(TokenRule::WrongIssuer)
            }
            _ => Ok(()),
        }
    }

    fn check_audience(&self, sent: Option<&Value>) -> Result<(), TokenRule> {
        let sent = match (sent, &self.audience) {
            (None, None) => return Ok(()),
            (Some(_), None) => return Err(TokenRule::UnexpectedAudience),
            (Some(Value::Array(several)), Some(_)) => several.as_slice(),
            (one, Some(_)) => one.map(std::slice::from_ref).unwrap_or_default(),
        };
        let is_ours = |sent: &Value| sent.as_str() == self.audience.as_deref();
        if sent.iter().all(Value::is_string) && sent.iter().any(is_ours) {
            Ok(())
        } else {
            Err(TokenRule::WrongAudience)
        }
    }
}

/// What the library checks. Issuer, audience and end are checked with the claims: it takes those of a type that it does
/// not expect, and a number that is out of its range, for none.
fn validation(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY.as_secs().unsigned_abs();
    validation.validate_nbf = true;
    validation.validate_aud = false;
    validation.validate_exp = false;
    validation.required_spec_claims.clear();
    validation
}

impl Header {
    fn read(token: &str) -> Option<Self> {
        let (header, _) = token.split_once('.')?;
        let text = BASE64_URL_SAFE_NO_PAD.decode(header).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn algorithm(&self) -> Result<Algorithm, TokenRule> {
        // What it names must be understood, and this server understands no extension.
        if self.crit.is_some() {
            return Err(TokenRule::Critical);
        }
        match self.alg.as_str() {
            "HS256" => Ok(Algorithm::HS256),
            "RS256" => Ok(Algorithm::RS256),
            "ES256" => Ok(Algorithm::ES256),
            "EdDSA" => Ok(Algorithm::EdDSA),
            none if none.eq_ignore_ascii_case("none") => Err(TokenRule::Unsigned),
            _ => Err(TokenRule::UnsupportedAlgorithm),
        }
    }
}

impl Claims {
    /// Reads the claims of a token that is valid otherwise.
    fn check(self) -> Result<Token, TokenRule> {
        let Some(Value::String(sub)) = self.sub else {
            return Err(TokenRule::NoSubject);
        };
        let user = UserId::new(sub).map_err(|_| TokenRule::InvalidSubject)?;
        let exp = self.exp.as_ref().and_then(Value::as_f64);
        let exp = exp.ok_or(TokenRule::NoExpiry)?;
        // It would be valid for thousands of years.
        if exp >= MILLISECONDS {
            return Err(TokenRule::ExpiryInMilliseconds);
        }
        if exp <= 0.0 {
            return Err(TokenRule::Expired);
        }
        let exp = time(exp);
        let expires_at = exp.saturating_add(LEEWAY).unwrap_or(Timestamp::MAX);
        // A stream ends at this time, and no other may begin after it.
        if expires_at <= Timestamp::now() {
            return Err(TokenRule::Expired);
        }
        Ok(Token {
            user,
            expires_at,
            has_endpoints: self.endpoints == Some(Value::Bool(true)),
        })
    }
}

/// The time of a number of seconds since 1970, or the last one there is.
fn time(seconds: f64) -> Timestamp {
    let duration = SignedDuration::try_from_secs_f64(seconds).ok();
    duration
        .and_then(|duration| Timestamp::from_duration(duration).ok())
        .unwrap_or(Timestamp::MAX)
}

impl TokenRule {
    fn of(kind: &ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidClaimFormat(claim) if claim == "nbf" => Self::NotYetValid,
            ErrorKind::ImmatureSignature => Self::NotYetValid,
            ErrorKind::InvalidAlgorithm => Self::WrongAlgorithm,
            _ => Self::Malformed,
        }
    }
}

#[cfg(test)]
mod tests;
