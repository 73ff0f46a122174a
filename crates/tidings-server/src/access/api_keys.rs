//! The API keys of the configuration and of the database.

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::caller::Caller;
use super::stored_keys::StoredKeys;
use super::{Refusal, new_key};
use crate::settings::ApiKey;

/// The keys that the server accepts.
#[derive(Debug)]
pub(crate) struct ApiKeys {
    /// Digests of the keys of the configuration; comparing digests takes the same time for every input.
    configured: Vec<[u8; 32]>,
    pub(super) stored: StoredKeys,
}

impl ApiKeys {
    pub(crate) fn new(configured: &[ApiKey], stored: StoredKeys) -> Self {
        let digest = |key: &ApiKey| Sha256::digest(key.expose()).into();
        Self {
            configured: configured.iter().map(digest).collect(),
            stored,
        }
    }

    /// Finds out whose key this is. `None` if it is not a key, and could not be a revoked one.
    pub(crate) async fn identify(&self, text: &str) -> Result<Option<Caller>, Refusal> {
        if self.is_configured(text) {
            return Ok(Some(Caller::Operator));
        }
        match self.stored.find(text).await {
            Ok(Some(known)) if is_over(known.key.expires_at) => Err(Refusal::ExpiredKey),
            Ok(Some(known)) => Ok(Some(Caller::Key(known))),
            Ok(None) if new_key::looks_like_one(text) => Err(Refusal::UnknownKey),
            Ok(None) => Ok(None),
            Err(error) => Err(Refusal::Storage(error)),
        }
    }

    /// Whether this is a key of the configuration, or has the form of the others.
    pub(crate) fn looks_like_one(&self, text: &str) -> bool {
        new_key::looks_like_one(text) || self.is_configured(text)
    }

    fn is_configured(&self, text: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(text).into();
        let found = self.configured.iter();
        let found = found.fold(Choice::from(0), |found, key| found | key.ct_eq(&digest));
        found.into()
    }
}

fn is_over(end: Option<Timestamp>) -> bool {
    end.is_some_and(|end| end <= Timestamp::now())
}
