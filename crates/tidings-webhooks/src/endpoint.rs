use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use tidings::signing::Secret;
use tidings_notify::UserId;

use crate::encryption::{EncryptionKeys, SealError};
use crate::settings::EndpointSettings;
use crate::store::{Disabled, StoredEndpoint};
use crate::{EndpointId, Error};

/// The types of events about endpoints.
pub(crate) const CREATED_EVENT: &str = "tidings.endpoint.created";
pub(crate) const UPDATED_EVENT: &str = "tidings.endpoint.updated";
pub(crate) const ENABLED_EVENT: &str = "tidings.endpoint.enabled";
pub(crate) const DISABLED_EVENT: &str = "tidings.endpoint.disabled";
pub(crate) const REMOVED_EVENT: &str = "tidings.endpoint.removed";
pub(crate) const SECRET_ROTATED_EVENT: &str = "tidings.endpoint.secret_rotated";

/// The type of the event that tests one endpoint.
pub(crate) const TEST_EVENT: &str = "tidings.test";

/// Who an endpoint belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The operator: every user's events are posted.
    Operator,
    /// One user: only that user's events are posted.
    User(UserId),
}

impl Owner {
    /// The user, unless it is the operator.
    pub fn user(&self) -> Option<&UserId> {
        match self {
            Self::Operator => None,
            Self::User(user) => Some(user),
        }
    }
}

/// The user's id; `null` for the operator.
impl Serialize for Owner {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.user().serialize(serializer)
    }
}

/// A webhook destination.
///
/// As JSON: the [settings](EndpointSettings) and `id`, `user_id`, `enabled`, `created_at`, and
/// `disabled_because` when it is disabled. Secrets are not among them.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Endpoint {
    /// Its name.
    pub id: EndpointId,
    /// Its owner.
    #[serde(rename = "user_id")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<tidings_notify::UserId>"))]
    pub owner: Owner,
    /// What its owner chose.
    #[serde(flatten)]
    pub settings: EndpointSettings,
    /// Whether events are posted.
    pub enabled: bool,
    /// Why not, when they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled_because: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    #[serde(skip)]
    pub(crate) secrets: Secrets,
}

/// The secrets of an endpoint.
#[derive(Debug, Clone)]
pub(crate) enum Secrets {
    /// Those that sign, the current one first.
    Known(Vec<SecretEntry>),
    /// They cannot be decrypted. Everything else about the endpoint can be read and changed, and they stay as
    /// they are stored, for the time when their key is there again.
    Sealed { stored: String, problem: SealError },
}

/// A secret, and until when it signs.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct SecretEntry {
    pub(crate) secret: Secret,
    /// `None` for the current one.
    pub(crate) until: Option<Timestamp>,
}

impl Endpoint {
    /// Reads what a store keeps.
    pub(crate) fn from_stored(
        stored: &StoredEndpoint,
        keys: &EncryptionKeys,
    ) -> Result<Self, Error> {
        let mut settings: EndpointSettings =
            serde_json::from_str(&stored.settings).map_err(unreadable)?;
        settings.event_types = serde_json::from_str(&stored.event_types).map_err(unreadable)?;
        let secrets = match keys.open(&context(stored.id), &stored.secrets) {
            Ok(secrets) => Secrets::Known(serde_json::from_str(&secrets).map_err(unreadable)?),
            Err(problem) => Secrets::Sealed {
                stored: stored.secrets.clone(),
                problem,
            },
        };
        Ok(Self {
            id: stored.id,
            owner: stored.owner.clone(),
            settings,
            enabled: stored.disabled.is_none(),
            disabled_because: stored.disabled.as_ref().map(|it| it.because.clone()),
            created_at: stored.created_at,
            secrets,
        })
    }

    /// The endpoint as a store keeps it, in place of the one that has this revision.
    pub(crate) fn to_stored(
        &self,
        revision: u64,
        keys: &EncryptionKeys,
    ) -> Result<StoredEndpoint, Error> {
        let mut settings = self.settings.clone();
        let event_types = std::mem::take(&mut settings.event_types);
        let secrets = match &self.secrets {
            Secrets::Known(secrets) => {
                let written: Vec<_> = secrets.iter().map(WrittenSecret::of).collect();
                let text = serde_json::to_string(&written).map_err(unreadable)?;
                keys.seal(&context(self.id), &text)?
            }
            Secrets::Sealed { stored, .. } => stored.clone(),
        };
        let first_wait = self.settings.schedule.as_ref();
        Ok(StoredEndpoint {
            id: self.id,
            owner: self.owner.clone(),
            settings: serde_json::to_string(&settings).map_err(unreadable)?,
            event_types: serde_json::to_string(&event_types).map_err(unreadable)?,
            secrets,
            first_wait: first_wait.and_then(|waits| waits.first().copied()),
            disabled: self.disabled_because.as_ref().map(|because| Disabled {
                because: because.clone(),
            }),
            removed: false,
            revision,
            created_at: self.created_at,
        })
    }

    /// Signs with a new secret from now on, and with the old ones as well until they expire, unless they cannot
    /// be decrypted.
    pub(crate) fn rotate(&mut self, secret: Secret, now: Timestamp, overlap: Duration) {
        let until = now.checked_add(overlap).unwrap_or(Timestamp::MAX);
        let mut secrets = match &mut self.secrets {
            Secrets::Known(secrets) => std::mem::take(secrets),
            Secrets::Sealed { .. } => Vec::new(),
        };
        let is_new = |entry: &SecretEntry| entry.secret.expose() != secret.expose();
        secrets.retain(|entry| is_new(entry) && entry.until.is_none_or(|until| until > now));
        for entry in &mut secrets {
            entry.until = Some(entry.until.map_or(until, |old| old.min(until)));
        }
        secrets.truncate(MAX_SECRETS - 1);
        secrets.insert(
            0,
            SecretEntry {
                secret,
                until: None,
            },
        );
        self.secrets = Secrets::Known(secrets);
    }

    /// The secrets that sign at a time.
    pub(crate) fn signing_secrets(&self, now: Timestamp) -> Result<Vec<Secret>, SealError> {
        let secrets = match &self.secrets {
            Secrets::Known(secrets) => secrets.iter(),
            Secrets::Sealed { problem, .. } => return Err(problem.clone()),
        };
        let signs = |entry: &&SecretEntry| entry.until.is_none_or(|until| until > now);
        Ok(secrets
            .filter(signs)
            .map(|entry| entry.secret.clone())
            .collect())
    }
}

/// What the secrets of an endpoint are bound to, so that they are of no use for another.
pub(crate) fn context(id: EndpointId) -> String {
    format!("endpoint {id}")
}

/// JSON of a store that is not what this version writes, or values that cannot be JSON.
fn unreadable(error: serde_json::Error) -> Error {
    Error::Unreadable(error.into())
}

/// Most secrets that sign at once: the current one and those of rotations under way.
const MAX_SECRETS: usize = 5;

#[derive(Serialize)]
struct WrittenSecret {
    secret: String,
    until: Option<Timestamp>,
}

impl WrittenSecret {
    fn of(entry: &SecretEntry) -> Self {
        Self {
            secret: entry.secret.expose().to_string(),
            until: entry.until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint {
            id: EndpointId::from_i64(7),
            owner: Owner::User(UserId::new("alice").unwrap()),
            settings: EndpointSettings::new("https://example.com/"),
            enabled: true,
            disabled_because: None,
            created_at: Timestamp::UNIX_EPOCH,
            secrets: Secrets::Known(vec![SecretEntry {
                secret: Secret::generate(),
                until: None,
            }]),
        }
    }

    fn signing(endpoint: &Endpoint, now: Timestamp) -> Vec<String> {
        let secrets = endpoint.signing_secrets(now).unwrap();
        secrets.iter().map(|it| it.expose().to_string()).collect()
    }

    #[test]
    fn an_endpoint_reads_back_as_stored_and_is_shown_without_secrets() {
        let written = endpoint();
        let keys = EncryptionKeys::default();
        let stored = written.to_stored(3, &keys).unwrap();
        let read = Endpoint::from_stored(&stored, &keys).unwrap();
        let shown = serde_json::to_value(&read).unwrap();
        assert_eq!(shown, serde_json::to_value(&written).unwrap());
        assert_eq!(shown["user_id"], "alice");
        assert_eq!(shown["id"], "ep_0000000000000007");
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(signing(&read, now), signing(&written, now));
        assert!(!shown.to_string().contains("whsec_"));
    }

    #[test]
    fn old_secrets_sign_until_their_overlap_ends() {
        let mut endpoint = endpoint();
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = signing(&endpoint, at(0)).remove(0);
        endpoint.rotate(Secret::generate(), at(100), Duration::from_secs(50));
        assert_eq!(signing(&endpoint, at(149)).len(), 2);
        assert_eq!(signing(&endpoint, at(149))[1], first);
        assert_eq!(signing(&endpoint, at(150)).len(), 1);
        for second in 0..20 {
            endpoint.rotate(
                Secret::generate(),
                at(100 + second),
                Duration::from_secs(50),
            );
        }
        assert_eq!(signing(&endpoint, at(120)).len(), MAX_SECRETS);
    }

    #[test]
    fn an_endpoint_whose_secrets_cannot_be_decrypted_can_be_read_and_changed() {
        let key = |byte: char| EncryptionKeys::new([byte.to_string().repeat(43).parse().unwrap()]);
        let (lost, other) = (key('A'), key('E'));
        let written = endpoint();
        let stored = written.to_stored(3, &lost).unwrap();
        assert!(!stored.secrets.contains("whsec_"));
        let now = Timestamp::UNIX_EPOCH;
        let mut read = Endpoint::from_stored(&stored, &other).unwrap();
        read.signing_secrets(now).unwrap_err();
        read.settings.description = "changed".to_owned();
        let changed = read.to_stored(3, &other).unwrap();
        assert_eq!(changed.secrets, stored.secrets);
        let found = Endpoint::from_stored(&changed, &lost).unwrap();
        assert_eq!(signing(&found, now), signing(&written, now));

        let moved = StoredEndpoint {
            id: EndpointId::from_i64(8),
            ..stored
        };
        let moved = Endpoint::from_stored(&moved, &lost).unwrap();
        assert_eq!(moved.signing_secrets(now).err(), Some(SealError::Changed));

        let new = Secret::generate();
        read.rotate(new.clone(), now, Duration::from_secs(50));
        assert_eq!(signing(&read, now), [new.expose().to_string()]);
    }
}
