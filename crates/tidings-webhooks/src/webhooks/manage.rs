//! Endpoints: made, changed, removed. Every change is an event for endpoints of the operator.

use std::time::Duration;

use tidings::signing::Secret;
use tidings_notify::Payload;

use super::{Webhooks, secret_or_new};
use crate::encryption::EncryptionKeys;
use crate::endpoint::{self, SecretEntry, Secrets};
use crate::lanes::ToDisable;
use crate::store::{Notice, StoredEndpoint};
use crate::{
    Endpoint, EndpointId, EndpointSettings, Error, Owner, StoreError, WebhookEvent, fan_out,
};

/// How often a change is tried again if another one was made at the same time.
const MAX_CONTENTION: u32 = 16;

/// The longest time for which an old secret signs too, after its [rotation](Webhooks::rotate_secret). A longer one is a
/// mistake.
pub const MAX_OVERLAP: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is stored of the secrets of an endpoint that is removed.
pub(super) const NO_SECRETS: &str = "[]";

/// An endpoint to be made.
#[derive(Debug, Clone)]
#[must_use]
pub struct NewEndpoint {
    owner: Owner,
    settings: EndpointSettings,
    secret: Option<Secret>,
    limit: Option<usize>,
    disabled_because: Option<String>,
}

impl NewEndpoint {
    /// An endpoint with a new secret.
    pub fn new(owner: Owner, settings: EndpointSettings) -> Self {
        Self {
            owner,
            settings,
            secret: None,
            limit: None,
            disabled_because: None,
        }
    }

    /// Signs with this secret.
    pub fn with_secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Refuses the endpoint if its owner already has this number of endpoints.
    pub fn with_limit(mut self, endpoints: usize) -> Self {
        self.limit = Some(endpoints);
        self
    }

    /// Sends nothing until the endpoint is [enabled](Webhooks::enable_endpoint), for this reason. What
    /// is accepted until then can be replayed.
    pub fn with_disabled(mut self, because: impl Into<String>) -> Self {
        self.disabled_because = Some(because.into());
        self
    }
}

/// A checked endpoint with its secret, to be stored by [`Webhooks::create_endpoint`] or, within the
/// caller's own transaction, by `sqlite::create_endpoint_in` or `postgres::create_endpoint_in`.
#[derive(Debug, Clone)]
pub struct PreparedEndpoint {
    endpoint: Endpoint,
    secret: Secret,
    pub(crate) stored: StoredEndpoint,
    pub(crate) limit: Option<usize>,
    pub(crate) notice: Option<Notice>,
}

/// Whether an update enables or disables an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetEnabled<'a> {
    /// It stays as it is.
    Keep,
    /// As [`Webhooks::enable_endpoint`].
    Enable,
    /// As [`Webhooks::disable_endpoint`], for this reason in words for a person.
    Disable(&'a str),
}

impl SetEnabled<'_> {
    /// Returns the type of the event about it, if it changes something.
    fn apply(self, endpoint: &mut Endpoint) -> Option<&'static str> {
        match self {
            Self::Enable if !endpoint.enabled => {
                endpoint.disabled_because = None;
                endpoint.enabled = true;
                Some(endpoint::ENABLED_EVENT)
            }
            Self::Disable(because) if endpoint.enabled => {
                endpoint.disabled_because = Some(because.to_owned());
                endpoint.enabled = false;
                Some(endpoint::DISABLED_EVENT)
            }
            Self::Keep | Self::Enable | Self::Disable(_) => None,
        }
    }
}

impl PreparedEndpoint {
    /// The endpoint as it will be.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its secret, which is not shown again.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }
}

impl Webhooks {
    /// Makes an endpoint. Returns it with its secret, which is not shown again.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] naming the setting, [`Error::BlockedUrl`], [`Error::Store`], also with
    /// [`StoreError::TooManyEndpoints`].
    pub async fn create_endpoint(&self, new: NewEndpoint) -> Result<(Endpoint, Secret), Error> {
        let prepared = self.prepare_endpoint(new).await?;
        let (stored, notice) = (prepared.stored.clone(), prepared.notice.clone());
        let store = &self.inner.store;
        store
            .insert_endpoint(stored, prepared.limit, notice)
            .await?;
        self.announce_endpoint(&prepared);
        Ok((prepared.endpoint, prepared.secret))
    }

    /// Checks a new endpoint and gives it an id and a secret, without storing it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] naming the setting, [`Error::BlockedUrl`], [`Error::Store`].
    pub async fn prepare_endpoint(&self, new: NewEndpoint) -> Result<PreparedEndpoint, Error> {
        let mut settings = new.settings;
        settings.check_owner(&new.owner)?;
        settings.check_timeout(&new.owner)?;
        self.inner.lanes.defaults().normalize(&mut settings)?;
        let secret = secret_or_new(new.secret);
        let endpoint = Endpoint {
            id: EndpointId::random(),
            owner: new.owner,
            settings,
            enabled: new.disabled_because.is_none(),
            disabled_because: new.disabled_because,
            created_at: self.inner.clock.wall.now(),
            secrets: Secrets::Known(vec![SecretEntry {
                secret: secret.clone(),
                until: None,
            }]),
        };
        let notice = self.notice(endpoint::CREATED_EVENT, &endpoint).await?;
        Ok(PreparedEndpoint {
            stored: endpoint.to_stored(1, self.keys())?,
            endpoint,
            secret,
            limit: new.limit,
            notice,
        })
    }

    /// Announces a new endpoint: has the lanes send the event about it. Call it after the commit of the
    /// transaction that stored the endpoint.
    pub fn announce_endpoint(&self, prepared: &PreparedEndpoint) {
        self.inner.lanes.wake(addressees(prepared.notice.as_ref()));
    }

    /// Finds an endpoint.
    ///
    /// # Errors
    ///
    /// [`Error::Store`], [`Error::Unreadable`].
    pub async fn endpoint(&self, id: EndpointId) -> Result<Option<Endpoint>, Error> {
        let stored = self.inner.store.endpoint(id).await?;
        let read = |stored| Endpoint::from_stored(stored, self.keys());
        stored.as_ref().map(read).transpose()
    }

    /// The endpoints of an owner, the oldest first. One that cannot be read is left out and logged.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn endpoints(&self, owner: &Owner) -> Result<Vec<Endpoint>, Error> {
        let stored = self.inner.store.endpoints(owner).await?;
        let read = stored.iter().filter_map(|stored| {
            Endpoint::from_stored(stored, self.keys())
                .inspect_err(|error| {
                    let error: &dyn std::error::Error = error;
                    tracing::error!(error, endpoint = %stored.id, "an endpoint cannot be read");
                })
                .ok()
        });
        Ok(read.collect())
    }

    /// Changes the settings of an endpoint. `change` may be called more than once, if other calls
    /// change the endpoint at the same time. `None` when there is no such endpoint.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] naming the setting, [`Error::BlockedUrl`], [`Error::Store`], [`Error::Unreadable`],
    /// [`Error::Contended`].
    pub async fn update_endpoint(
        &self,
        id: EndpointId,
        change: impl FnMut(&mut EndpointSettings) + Send,
    ) -> Result<Option<Endpoint>, Error> {
        self.update_endpoint_with(id, SetEnabled::Keep, change)
            .await
    }

    /// Changes the settings of an endpoint as [`update_endpoint`](Self::update_endpoint) does, and with them whether
    /// it is enabled: both or neither. A change that enables or disables the endpoint is announced by that event
    /// alone, not by an update as well.
    ///
    /// # Errors
    ///
    /// As of [`update_endpoint`](Self::update_endpoint).
    pub async fn update_endpoint_with(
        &self,
        id: EndpointId,
        enabled: SetEnabled<'_>,
        mut change: impl FnMut(&mut EndpointSettings) + Send,
    ) -> Result<Option<Endpoint>, Error> {
        self.change(id, |endpoint, _| {
            let before = endpoint.settings.event_types.clone();
            let timeout_before = endpoint.settings.timeout;
            change(&mut endpoint.settings);
            // One that was stored with what it must not get any more can be changed in everything else.
            if endpoint.settings.event_types != before {
                endpoint.settings.check_owner(&endpoint.owner)?;
            }
            if endpoint.settings.timeout != timeout_before {
                endpoint.settings.check_timeout(&endpoint.owner)?;
            }
            self.inner
                .lanes
                .defaults()
                .normalize(&mut endpoint.settings)?;
            let event_type = enabled.apply(endpoint);
            Ok(event_type.or(Some(endpoint::UPDATED_EVENT)))
        })
        .await
    }

    /// Enables an endpoint again. Deliveries that were cancelled when it was disabled, and events that were
    /// accepted since, can be [replayed](Self::replay). `None` when there is no such endpoint.
    ///
    /// # Errors
    ///
    /// [`Error::Store`], [`Error::Unreadable`], [`Error::Contended`].
    pub async fn enable_endpoint(&self, id: EndpointId) -> Result<Option<Endpoint>, Error> {
        let enable = |endpoint: &mut Endpoint, _| Ok(SetEnabled::Enable.apply(endpoint));
        self.change(id, enable).await
    }

    /// Disables an endpoint, stops its replay, and cancels its pending deliveries in steps. Events that are accepted from then
    /// on are kept, and can be [replayed](Self::replay). `None` when there is no such
    /// endpoint; one that is disabled keeps its first reason.
    ///
    /// # Errors
    ///
    /// [`Error::Store`], [`Error::Unreadable`], [`Error::Contended`].
    pub async fn disable_endpoint(
        &self,
        id: EndpointId,
        because: &str,
    ) -> Result<Option<Endpoint>, Error> {
        let disable = |endpoint: &mut Endpoint, _| Ok(SetEnabled::Disable(because).apply(endpoint));
        self.change(id, disable).await
    }

    /// Disables an endpoint if it still has the revision that has failed. Returns whether it did.
    pub(super) async fn disable_unless_changed(&self, it: ToDisable) -> Result<bool, Error> {
        let mut is_disabled = false;
        self.change(it.endpoint, |endpoint, revision| {
            let event_type = (revision == it.revision)
                .then(|| SetEnabled::Disable(it.because).apply(endpoint))
                .flatten();
            is_disabled = event_type.is_some();
            Ok(event_type)
        })
        .await?;
        Ok(is_disabled)
    }

    /// Removes an endpoint, and cancels its pending deliveries in steps. Its deliveries stay until
    /// they are cleaned. Returns whether there was one. One that cannot be read can be removed.
    ///
    /// # Errors
    ///
    /// [`Error::Store`], [`Error::Contended`].
    pub async fn remove_endpoint(&self, id: EndpointId) -> Result<bool, Error> {
        for _ in 0..MAX_CONTENTION {
            let Some(mut stored) = self.inner.store.endpoint(id).await? else {
                return Ok(false);
            };
            let notice = match Endpoint::from_stored(&stored, self.keys()) {
                Ok(endpoint) => self.notice(endpoint::REMOVED_EVENT, &endpoint).await?,
                Err(_) => None,
            };
            stored.removed = true;
            NO_SECRETS.clone_into(&mut stored.secrets);
            let endpoints = addressees(notice.as_ref());
            let now = self.inner.clock.now();
            let store = &self.inner.store;
            if store.replace_endpoint(stored, now, notice).await? {
                self.inner.lanes.unblock(id);
                self.inner.lanes.wake(endpoints);
                return Ok(true);
            }
        }
        Err(Error::Contended)
    }

    /// Signs with another secret from now on, a new one unless the caller has one, and with the old
    /// ones as well for `overlap`, at most 30 days. Returns the secret; `None` when there is no such endpoint.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] for `overlap_ms`, [`Error::Store`], [`Error::Unreadable`],
    /// [`Error::Contended`].
    pub async fn rotate_secret(
        &self,
        id: EndpointId,
        secret: Option<Secret>,
        overlap: Duration,
    ) -> Result<Option<Secret>, Error> {
        check_overlap(overlap)?;
        let secret = secret_or_new(secret);
        let now = self.inner.clock.wall.now();
        let rotated = self
            .change(id, |endpoint, _| {
                endpoint.rotate(secret.clone(), now, overlap);
                Ok(Some(endpoint::SECRET_ROTATED_EVENT))
            })
            .await?;
        Ok(rotated.map(|_| secret))
    }

    /// Changes an endpoint, and tries again if another call changed it at the same time. `change` gets its revision too, and
    /// returns the type of the event about the change; `None` when there is nothing to store.
    async fn change(
        &self,
        id: EndpointId,
        mut change: impl FnMut(&mut Endpoint, u64) -> Result<Option<&'static str>, Error> + Send,
    ) -> Result<Option<Endpoint>, Error> {
        for _ in 0..MAX_CONTENTION {
            let Some(stored) = self.inner.store.endpoint(id).await? else {
                return Ok(None);
            };
            let mut endpoint = Endpoint::from_stored(&stored, self.keys())?;
            let was_enabled = endpoint.enabled;
            let Some(event_type) = change(&mut endpoint, stored.revision)? else {
                return Ok(Some(endpoint));
            };
            let notice = self.notice(event_type, &endpoint).await?;
            let endpoints = addressees(notice.as_ref());
            let new = endpoint.to_stored(stored.revision, self.keys())?;
            let now = self.inner.clock.now();
            if self.inner.store.replace_endpoint(new, now, notice).await? {
                if was_enabled && let Some(because) = &endpoint.disabled_because {
                    tracing::warn!(endpoint = %id, because, "an endpoint is disabled");
                }
                self.inner.lanes.unblock(id);
                self.inner.lanes.wake(endpoints);
                return Ok(Some(endpoint));
            }
        }
        Err(Error::Contended)
    }

    /// The keys that encrypt secrets.
    pub(super) fn keys(&self) -> &EncryptionKeys {
        &self.inner.lanes.defaults().encryption
    }

    /// The event about a change of an endpoint, if an endpoint of the operator wants it.
    pub(super) async fn notice(
        &self,
        event_type: &'static str,
        endpoint: &Endpoint,
    ) -> Result<Option<Notice>, Error> {
        let mut about = serde_json::json!({
            "endpoint_id": endpoint.id,
            "user_id": endpoint.owner,
            // Without the query, which may hold a key.
            "url": endpoint.settings.url.split('?').next(),
            "enabled": endpoint.enabled,
        });
        if let Some(because) = &endpoint.disabled_because {
            about["disabled_because"] = because.as_str().into();
        }
        let payload = Payload::from_value(&about).map_err(StoreError::backend)?;
        let event = WebhookEvent::of_type(event_type.to_owned(), payload);
        let (store, clock) = (&*self.inner.store, &self.inner.clock);
        let addressed = fan_out::address_notice(store, clock, event).await?;
        Ok(addressed.map(|addressed| Notice {
            addressed,
            at: clock.wall.now(),
        }))
    }
}

pub(super) fn check_overlap(overlap: Duration) -> Result<(), Error> {
    if overlap <= MAX_OVERLAP {
        return Ok(());
    }
    let expected = format!("at most {} (30 days)", MAX_OVERLAP.as_millis());
    Err(Error::invalid("overlap_ms", expected))
}

pub(super) fn addressees(notice: Option<&Notice>) -> Vec<EndpointId> {
    let to = notice.map(|notice| notice.addressed.to.as_slice());
    to.unwrap_or_default().iter().map(|(id, _)| *id).collect()
}
