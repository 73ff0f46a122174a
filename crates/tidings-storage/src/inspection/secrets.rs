//! Whether the secrets in a database can be decrypted with the keys of the settings.

use tidings_webhooks::EndpointId;
use tidings_webhooks::encryption::{EncryptionKeys, SealError};

use crate::counted::counted;
use crate::finding::Finding;

/// What was found of the secrets of endpoints.
#[derive(Debug, Default)]
pub struct Secrets {
    keys: EncryptionKeys,
    plain: usize,
    opened: usize,
    lost: usize,
    /// Why the first lost ones cannot be decrypted.
    problem: Option<SealError>,
}

impl Secrets {
    /// Secrets that these keys are to decrypt.
    pub fn new(keys: EncryptionKeys) -> Self {
        Self {
            keys,
            ..Self::default()
        }
    }

    /// Looks at what is stored of the secrets of an endpoint.
    pub(crate) fn add(&mut self, endpoint: EndpointId, stored: &str) {
        match self.keys.open_secrets(endpoint, stored) {
            Ok(plain) if plain == stored => self.plain += 1,
            Ok(_) => self.opened += 1,
            Err(problem) => {
                self.lost += 1;
                self.problem.get_or_insert(problem);
            }
        }
    }

    /// What follows. `is_dev`: a server for trying out needs no encryption.
    pub fn findings(&self, is_dev: bool) -> Vec<Finding> {
        const KEYS: &str = "keys";
        let endpoints = |number| counted(number, "endpoint");
        let mut findings = Vec::new();
        if let Some(problem) = &self.problem {
            let message = format!(
                "the secrets of {} cannot be decrypted, so all their webhooks fail: {problem} (--encryption-key)",
                endpoints(self.lost)
            );
            findings.push(Finding::error(KEYS, message));
        } else if self.keys.is_empty() && !is_dev {
            let message = "the secrets of webhook endpoints are stored without encryption; TIDINGS_ENCRYPTION_KEY encrypts them";
            findings.push(Finding::warning(KEYS, message));
        }
        if self.opened > 0 {
            let message = format!("the secrets of {} can be decrypted", endpoints(self.opened));
            findings.push(Finding::ok(KEYS, message));
        }
        if self.plain > 0 && !self.keys.is_empty() {
            let message = format!(
                "the secrets of {} are stored without encryption: a server encrypts them after its start",
                endpoints(self.plain)
            );
            findings.push(Finding::ok(KEYS, message));
        }
        findings
    }
}
