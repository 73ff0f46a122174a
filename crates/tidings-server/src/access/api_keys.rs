//! The API keys of the configuration.

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::settings::ApiKey;

/// Digests of the keys; comparing digests takes the same time for every input.
#[derive(Debug)]
pub(crate) struct ApiKeys(Vec<[u8; 32]>);

impl ApiKeys {
    pub(crate) fn new(keys: &[ApiKey]) -> Self {
        let digest = |key: &ApiKey| Sha256::digest(key.expose()).into();
        Self(keys.iter().map(digest).collect())
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let found = self.0.iter();
        let found = found.fold(Choice::from(0), |found, key| found | key.ct_eq(&digest));
        found.into()
    }
}
