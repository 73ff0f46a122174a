//! Who may call: API keys for servers, and tokens for users.
//!
//! | module | has |
//! |---|---|
//! | `credential` | where a request has what proves who calls |
//! | `api_keys` | the API keys |
//! | `token` | tokens of users: the rules |
//! | `verification_keys`, `jwks` | the keys that verify tokens, and where they come from |
//! | `caller` | who calls, and what they may do |
//! | `expiry` | the end of a token while a stream is open |
//! | `issue` | makes a token for trying out |

mod api_keys;
mod caller;
pub(crate) mod credential;
mod expiry;
mod issue;
mod jwks;
mod token;
mod verification_keys;

use self::api_keys::ApiKeys;
pub(crate) use self::caller::{Caller, Forbidden, Scope};
use self::credential::{Credential, Place, Unclear};
pub(crate) use self::expiry::{Due, Expiry};
pub(crate) use self::issue::NewToken;
pub use self::jwks::JwksError;
use self::jwks::{Jwks, Pace};
pub(crate) use self::token::TokenRule;
use self::token::Tokens;
pub use self::verification_keys::KeyFileError;
use self::verification_keys::VerificationKey;
use crate::config::Config;
use crate::settings::jwt::{JwksSource, JwtSettings, UnusableSecret};

/// Finds out who calls.
#[derive(Debug)]
pub(crate) struct Access {
    api_keys: ApiKeys,
    /// `None` if the server has no key for tokens.
    tokens: Option<Tokens>,
    cookie: Option<String>,
    /// Whether a request needs no credential: with `--dev` and without keys.
    is_open: bool,
}

/// Why a request is refused before its handler runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It has no credential.
    Missing,
    /// It has several, or one of another scheme.
    Unclear(Unclear),
    /// It has a key that the server does not know.
    UnknownKey,
    /// It has a token that breaks a rule.
    Token(TokenRule),
}

/// Why the keys for tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The secret cannot be used.
    #[error(transparent)]
    Secret(#[from] UnusableSecret),
    /// A public key cannot be used.
    #[error(transparent)]
    PublicKey(#[from] KeyFileError),
    /// The key set cannot be used.
    #[error("--jwt-jwks: cannot load the keys from {source_name}")]
    Jwks {
        /// The file or the URL.
        source_name: String,
        /// What is wrong.
        source: JwksError,
    },
}

impl Access {
    /// Reads the keys that the configuration names. A URL may be out of reach: then tokens are refused until
    /// its keys can be loaded.
    pub(crate) async fn open(config: &Config) -> Result<Self, AccessError> {
        Ok(Self {
            api_keys: ApiKeys::new(&config.api_keys),
            tokens: tokens(&config.jwt).await?,
            cookie: config.jwt.cookie.clone(),
            is_open: config.api_keys.is_empty(),
        })
    }

    /// Keeps what was loaded up to date. Never returns.
    pub(crate) async fn run(&self) {
        match self.tokens.as_ref().and_then(|tokens| tokens.jwks.as_ref()) {
            Some(jwks) => jwks.run().await,
            None => std::future::pending().await,
        }
    }

    /// Finds the credential of a request.
    pub(crate) fn credential(
        &self,
        headers: &axum::http::HeaderMap,
        uri: &axum::http::Uri,
    ) -> Result<Option<Credential>, Refusal> {
        let found = match &self.tokens {
            Some(_) => credential::anywhere(headers, uri, self.cookie.as_deref()),
            None if self.is_open => Ok(None),
            None => credential::in_header(headers),
        };
        found.map_err(Refusal::Unclear)
    }

    /// Finds out who sent this credential.
    pub(crate) async fn identify(&self, sent: Option<Credential>) -> Result<Caller, Refusal> {
        let Some(Credential { text, place }) = sent else {
            return if self.is_open {
                Ok(Caller::Operator)
            } else {
                Err(Refusal::Missing)
            };
        };
        if place == Place::Header && self.api_keys.contains(&text) {
            return Ok(Caller::Operator);
        }
        match &self.tokens {
            // A key that is mistyped is called a key, unless it could be a token.
            Some(tokens) if place != Place::Header || text.contains('.') => {
                let token = tokens.verify(&text).await;
                token.map(Caller::User).map_err(Refusal::Token)
            }
            _ if self.is_open => Ok(Caller::Operator),
            _ => Err(Refusal::UnknownKey),
        }
    }
}

async fn tokens(settings: &JwtSettings) -> Result<Option<Tokens>, AccessError> {
    if !settings.has_keys() {
        return Ok(None);
    }
    let secret = settings.signing.read_secret()?;
    let secret = secret.as_ref().map(VerificationKey::of_secret);
    let public = settings.public_keys.iter();
    let public = public.map(|path| VerificationKey::read_pem(path));
    let keys = secret.into_iter().map(Ok).chain(public);
    let jwks = match &settings.jwks {
        Some(source) => Some(load(source).await.map_err(|error| AccessError::Jwks {
            source_name: source.to_string(),
            source: error,
        })?),
        None => None,
    };
    Ok(Some(Tokens {
        keys: keys.collect::<Result<_, KeyFileError>>()?,
        jwks,
        issuer: settings.signing.issuer.clone(),
        audience: settings.signing.audience.clone(),
    }))
}

async fn load(source: &JwksSource) -> Result<Jwks, JwksError> {
    let jwks = Jwks::new(source.clone(), Pace::default())?;
    match (jwks.load().await, source) {
        (Err(error), JwksSource::File(_)) => return Err(error),
        (Err(error), JwksSource::Url(_)) => jwks.warn(&error),
        (Ok(()), _) => {}
    }
    Ok(jwks)
}
