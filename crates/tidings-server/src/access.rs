//! Who may call: API keys for servers, and tokens for users.
//!
//! | module | has |
//! |---|---|
//! | `credential` | where a request has what proves who calls |
//! | `api_keys`, `stored_keys`, `new_key` | the API keys: of the configuration, of the database, new ones |
//! | `token` | tokens of users: the rules |
//! | `verification_keys` | the keys that verify tokens |
//! | `key_file`, `key_set`, `jwks` | where they come from: PEM files, key sets, and how sets are loaded |
//! | `caller` | who calls, and what they may do |
//! | `validity` | the end of a permission while a stream is open |
//! | `issue` | makes a token for trying out |

mod api_keys;
mod caller;
pub(crate) mod credential;
mod issue;
mod jwks;
mod key_file;
mod key_set;
mod new_key;
mod stored_keys;
mod token;
mod validity;
mod verification_keys;

use std::sync::Arc;

use tidings_storage::{ApiKeyStore, StorageError};

use crate::panics;
use tidings_webhooks::encryption::{EncryptionKey, EncryptionKeys, InvalidKey};

use self::api_keys::ApiKeys;
pub(crate) use self::caller::{Caller, Forbidden};
use self::credential::{Credential, Place, Unclear};
pub(crate) use self::issue::NewToken;
pub use self::jwks::JwksError;
use self::jwks::{Jwks, Pace};
pub use self::key_file::KeyFileError;
pub(crate) use self::key_file::read as read_public_keys;
pub use self::key_set::{KeySetError, NameInSet};
pub(crate) use self::new_key::new_key;
use self::stored_keys::StoredKeys;
#[cfg(test)]
pub(crate) use self::token::Token;
pub(crate) use self::token::TokenRule;
use self::token::Tokens;
pub(crate) use self::validity::{Due, Validity};
pub use self::verification_keys::UnusableKey;
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
    /// Takes the place of a key that is made of an API key, on an open server. It ends with this process.
    own_key: EncryptionKeys,
}

/// Why a request is refused before its handler runs.
#[derive(Debug, Clone)]
pub(crate) enum Refusal {
    /// It has no credential.
    Missing,
    /// It has several, or one of another scheme.
    Unclear(Unclear),
    /// It has a key that the server does not know.
    UnknownKey,
    /// It has a key whose time is over.
    ExpiredKey,
    /// The database could not be asked for its key.
    Storage(StorageError),
    /// It has a key outside the header.
    KeyElsewhere,
    /// It has something that could be a token, and the server accepts none.
    NoTokens,
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
    /// The keys in the database cannot be read.
    #[error("cannot read the API keys in the database")]
    Keys(#[source] StorageError),
    /// The system has no random numbers.
    #[error("cannot make random numbers")]
    Random(#[source] getrandom::Error),
    /// A key of this process cannot be made.
    #[error("cannot make a key of this process")]
    OwnKey(#[from] InvalidKey),
    /// The key set cannot be used.
    #[error("--jwt-jwks: cannot load the keys from {source_name}")]
    Jwks {
        /// The file or the URL.
        source_name: String,
        /// What is wrong.
        source: JwksError,
    },
}

impl AccessError {
    fn of_set(source: &JwksSource, error: JwksError) -> Self {
        Self::Jwks {
            source_name: source.to_string(),
            source: error,
        }
    }
}

impl Access {
    /// Reads the keys that the configuration names. A URL may be out of reach: then tokens are refused until
    /// its keys can be loaded.
    pub(crate) async fn open(
        config: &Config,
        store: Arc<dyn ApiKeyStore>,
    ) -> Result<Self, AccessError> {
        let tokens = tokens(&config.jwt).await?;
        let stored = StoredKeys::open(store).await.map_err(AccessError::Keys)?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(AccessError::Random)?;
        let own_key = key_of(&secret)?;
        Ok(Self {
            api_keys: ApiKeys::new(&config.api_keys, stored),
            tokens,
            cookie: config.jwt.cookie.clone(),
            is_open: config.api_keys.is_empty(),
            own_key,
        })
    }

    /// Keeps what was loaded up to date. Never returns.
    pub(crate) async fn run(&self) {
        let stored = async {
            let stored = &self.api_keys.stored;
            while panics::attempt("the reading of the API keys", stored.run())
                .await
                .is_none()
            {}
        };
        let key_set = async {
            if let Some(jwks) = self.tokens.as_ref().and_then(|tokens| tokens.jwks.as_ref()) {
                while panics::attempt("the loading of the keys for tokens", jwks.run())
                    .await
                    .is_none()
                {}
            }
        };
        tokio::join!(stored, key_set);
    }

    /// The keys of the database.
    pub(crate) fn stored_keys(&self) -> &StoredKeys {
        &self.api_keys.stored
    }

    /// Removes a key, which this instance refuses at once. Returns `false` if there is none.
    pub(crate) async fn revoke_key(&self, id: &str) -> Result<bool, StorageError> {
        let is_removed = self.api_keys.stored.store().remove(id).await?;
        if is_removed {
            // The reading of all keys may fail, and the caller relies on what is said here.
            self.api_keys.stored.forget(id).await;
        }
        self.learn_of_change().await;
        Ok(is_removed)
    }

    /// Makes this instance accept or refuse an API key at once that was stored or removed. If it cannot read the keys
    /// just now, it learns of the change as the others do.
    pub(crate) async fn learn_of_change(&self) {
        if let Err(error) = self.api_keys.stored.refresh().await {
            tracing::debug!(%error, "cannot read the API keys after a change, trying again soon");
        }
    }

    /// A key that is made of the API key in the header, so that only its owner can decrypt. On an open server,
    /// which gets none, it ends with this process.
    pub(crate) fn key_of_caller(
        &self,
        headers: &axum::http::HeaderMap,
    ) -> Result<EncryptionKeys, InvalidKey> {
        match credential::in_header(headers) {
            Ok(Some(credential)) => key_of(credential.text.as_bytes()),
            _ => Ok(self.own_key.clone()),
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
            // What is elsewhere is not accepted, also by an open server, and looked for to say so.
            None => match credential::in_header(headers) {
                Ok(None) => credential::anywhere(headers, uri, None),
                found => found,
            },
        };
        found.map_err(Refusal::Unclear)
    }

    /// Whether users may call with tokens.
    pub(crate) fn accepts_tokens(&self) -> bool {
        self.tokens.is_some()
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
        if place != Place::Header && self.api_keys.looks_like_one(&text) {
            return Err(Refusal::KeyElsewhere);
        }
        if place == Place::Header
            && let Some(caller) = self.api_keys.identify(&text).await?
        {
            return Ok(caller);
        }
        match &self.tokens {
            // A key that is mistyped is called a key, unless it could be a token.
            Some(tokens) if place != Place::Header || text.contains('.') => {
                let token = tokens.verify(&text).await;
                token.map(Caller::User).map_err(Refusal::Token)
            }
            None if place != Place::Header => Err(Refusal::NoTokens),
            _ => Err(Refusal::UnknownKey),
        }
    }
}

/// The key that encrypts a response for the caller who has this secret.
fn key_of(secret: &[u8]) -> Result<EncryptionKeys, InvalidKey> {
    let key = EncryptionKey::derived(secret, "tidings response for a caller")?;
    Ok(EncryptionKeys::new([key]))
}

async fn tokens(settings: &JwtSettings) -> Result<Option<Tokens>, AccessError> {
    if !settings.has_keys() {
        return Ok(None);
    }
    let secret = settings.signing.read_secret()?;
    let secret = secret.as_ref().map(VerificationKey::of_secret);
    let mut keys = Vec::from_iter(secret);
    for path in &settings.public_keys {
        keys.extend(key_file::read(path)?);
    }
    let jwks = match &settings.jwks {
        Some(source) => {
            let loaded = load(source).await;
            Some(loaded.map_err(|error| AccessError::of_set(source, error))?)
        }
        None => None,
    };
    Ok(Some(Tokens {
        keys,
        jwks,
        issuer: settings.signing.issuer.clone(),
        audience: settings.signing.audience.clone(),
    }))
}

/// Loads a key set once, and gives how many of its keys can be used.
pub(crate) async fn count_keys_in_set(source: &JwksSource) -> Result<usize, AccessError> {
    let loaded = async {
        let jwks = Jwks::new(source.clone(), Pace::default())?;
        jwks.load().await?;
        Ok(jwks.keys().map_or(0, |keys| keys.len()))
    };
    loaded
        .await
        .map_err(|error| AccessError::of_set(source, error))
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
