use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use tidings::signing::Secret;
use tidings_notify::UserId;

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
#[non_exhaustive]
pub struct Endpoint {
    /// Its name.
    pub id: EndpointId,
    /// Its owner.
    #[serde(rename = "user_id")]
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
    /// The secrets that sign, the current one first.
    #[serde(skip)]
    pub(crate) secrets: Vec<SecretEntry>,
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
    pub(crate) fn from_stored(stored: &StoredEndpoint) -> Result<Self, Error> {
        let unreadable =
            |error: serde_json::Error| Error::Unreadable(std::sync::Arc::new(error) as _);
        let mut settings: EndpointSettings =
            serde_json::from_str(&stored.settings).map_err(unreadable)?;
        settings.event_types = serde_json::from_str(&stored.event_types).map_err(unreadable)?;
        let secrets: Vec<SecretEntry> =
            serde_json::from_str(&stored.secrets).map_err(unreadable)?;
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
    pub(crate) fn to_stored(&self, revision: u64) -> Result<StoredEndpoint, Error> {
        let unwritable =
            |error: serde_json::Error| Error::Unreadable(std::sync::Arc::new(error) as _);
        let mut settings = self.settings.clone();
        let event_types = std::mem::take(&mut settings.event_types);
        let secrets: Vec<_> = self
            .secrets
            .iter()
            .map(|entry| WrittenSecret {
                secret: entry.secret.expose().to_string(),
                until: entry.until,
            })
            .collect();
        let first_wait = self.settings.schedule.as_ref();
        Ok(StoredEndpoint {
            id: self.id,
            owner: self.owner.clone(),
            settings: serde_json::to_string(&settings).map_err(unwritable)?,
            event_types: serde_json::to_string(&event_types).map_err(unwritable)?,
            secrets: serde_json::to_string(&secrets).map_err(unwritable)?,
            first_wait: first_wait.and_then(|waits| waits.first().copied()),
            disabled: self.disabled_because.as_ref().map(|because| Disabled {
                because: because.clone(),
            }),
            removed: false,
            revision,
            created_at: self.created_at,
        })
    }

    /// Signs with a new secret from now on, and with the old ones as well until they expire.
    pub(crate) fn rotate(&mut self, secret: Secret, now: Timestamp, overlap: Duration) {
        let until = now.checked_add(overlap).unwrap_or(Timestamp::MAX);
        let is_new = |entry: &SecretEntry| entry.secret.expose() != secret.expose();
        self.secrets
            .retain(|entry| is_new(entry) && entry.until.is_none_or(|until| until > now));
        for entry in &mut self.secrets {
            entry.until = Some(entry.until.map_or(until, |old| old.min(until)));
        }
        self.secrets.truncate(MAX_SECRETS - 1);
        self.secrets.insert(
            0,
            SecretEntry {
                secret,
                until: None,
            },
        );
    }

    /// The secrets that sign at a time.
    pub(crate) fn signing_secrets(&self, now: Timestamp) -> impl Iterator<Item = &Secret> {
        self.secrets
            .iter()
            .filter(move |entry| entry.until.is_none_or(|until| until > now))
            .map(|entry| &entry.secret)
    }
}

/// Most secrets that sign at once: the current one and those of rotations under way.
const MAX_SECRETS: usize = 5;

#[derive(Serialize)]
struct WrittenSecret {
    secret: String,
    until: Option<Timestamp>,
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
            secrets: vec![SecretEntry {
                secret: Secret::generate(),
                until: None,
            }],
        }
    }

    #[test]
    fn an_endpoint_reads_back_as_stored_and_is_shown_without_secrets() {
        let written = endpoint();
        let read = Endpoint::from_stored(&written.to_stored(3).unwrap()).unwrap();
        let shown = serde_json::to_value(&read).unwrap();
        assert_eq!(shown, serde_json::to_value(&written).unwrap());
        assert_eq!(shown["user_id"], "alice");
        assert_eq!(shown["id"], "ep_0000000000000007");
        let secret = written.secrets[0].secret.expose();
        assert_eq!(*read.secrets[0].secret.expose(), *secret);
        assert!(!shown.to_string().contains("whsec_"));
    }

    #[test]
    fn old_secrets_sign_until_their_overlap_ends() {
        let mut endpoint = endpoint();
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = endpoint.secrets[0].secret.expose().to_string();
        endpoint.rotate(Secret::generate(), at(100), Duration::from_secs(50));
        let signing = |now| -> Vec<String> {
            let secrets = endpoint.signing_secrets(at(now));
            secrets.map(|it| it.expose().to_string()).collect()
        };
        assert_eq!(signing(149).len(), 2);
        assert_eq!(signing(149)[1], first);
        assert_eq!(signing(150).len(), 1);
        for second in 0..20 {
            endpoint.rotate(
                Secret::generate(),
                at(100 + second),
                Duration::from_secs(50),
            );
        }
        assert_eq!(endpoint.secrets.len(), MAX_SECRETS);
    }
}
