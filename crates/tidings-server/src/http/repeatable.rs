//! Makes a change once for its idempotency key, and replies to a repeat what was replied first.

use std::sync::Arc;

use tidings_storage::idempotency::Once;
use tidings_storage::{Change, Changed, Keep, StorageError};
use tidings_webhooks::Delivery;
use tidings_webhooks::encryption::{EncryptionKeys, SealError};
use tracing::Instrument;

use super::error::ApiError;
use crate::app::{App, SharedApp};

/// A request to change something, which can be repeated if it has an idempotency key.
#[derive(Debug)]
pub(super) struct Repeatable<'a> {
    app: &'a SharedApp,
    once: Option<Once>,
    /// A key that only this caller has, for a response that no one else may read.
    of_caller: Option<EncryptionKeys>,
}

/// Makes the text of the response.
type Respond = dyn Fn(Option<&Delivery>) -> Result<String, serde_json::Error> + Send + Sync;

/// What became of a change.
#[derive(Debug)]
pub(super) enum Made {
    /// It is made, now or by an earlier request; and the text of the response.
    Response(String),
    /// Nothing was stored: there are as many as allowed.
    TooMany { limit: usize },
    /// Nothing was stored: there is nothing to do the operation on.
    Refused,
    /// Nothing was stored: another change was faster. Prepare it again.
    Contended,
}

impl<'a> Repeatable<'a> {
    pub(super) fn new(app: &'a SharedApp, once: Option<Once>) -> Self {
        Self {
            app,
            once,
            of_caller: None,
        }
    }

    /// Keeps the response so that it cannot be read from the database without this key.
    pub(super) fn sealed_with(self, key: EncryptionKeys) -> Self {
        Self {
            of_caller: Some(key),
            ..self
        }
    }

    /// The response to an earlier request with the same idempotency key, if there was one. It does not matter whether
    /// the request would be valid now.
    pub(super) async fn earlier(&self) -> Result<Option<String>, ApiError> {
        let Some(once) = &self.once else {
            return Ok(None);
        };
        match self.app.storage.requests.earlier_change(once).await? {
            Some(Changed::Repeated(kept)) => self.open(&kept).map(Some),
            Some(Changed::Conflict) => Err(ApiError::idempotency_conflict()),
            _ => Ok(None),
        }
    }

    /// Makes the change, unless the request is a repeat, with the idempotency key in the same transaction.
    ///
    /// # Cancel safety
    ///
    /// A dropped call continues: what may already be committed must be announced.
    pub(super) async fn make(
        &self,
        change: Change,
        respond: impl Fn(Option<&Delivery>) -> Result<String, serde_json::Error> + Send + Sync + 'static,
    ) -> Result<Made, ApiError> {
        self.make_once(change, Arc::new(respond)).await
    }

    async fn make_once(&self, change: Change, respond: Arc<Respond>) -> Result<Made, ApiError> {
        let keep = self
            .once
            .clone()
            .map(|once| self.keep(once, Arc::clone(&respond)));
        let app = Arc::clone(self.app);
        let run = async move {
            let changed = app.storage.records.change(change.clone(), keep).await?;
            if let Changed::Made(delivery) = &changed {
                announce(&app, &change, delivery.as_ref()).await;
            }
            Ok(changed)
        };
        let task = self.app.tasks.spawn(run.in_current_span());
        let changed: Result<_, StorageError> = task
            .await
            .unwrap_or_else(|panic| Err(StorageError::failed(panic)));
        match changed? {
            Changed::Made(delivery) => {
                self.app.outage.worked();
                Ok(Made::Response(respond(delivery.as_ref())?))
            }
            Changed::Repeated(kept) => Ok(Made::Response(self.open(&kept)?)),
            Changed::Conflict => Err(ApiError::idempotency_conflict()),
            Changed::Running => Err(ApiError::request_running()),
            Changed::TooMany { limit } => Ok(Made::TooMany { limit }),
            Changed::Refused => Ok(Made::Refused),
            Changed::Contended => Ok(Made::Contended),
        }
    }

    /// How the response is kept: it may have a secret in it.
    fn keep(&self, once: Once, respond: Arc<Respond>) -> Keep {
        let (of_server, of_caller) = (self.app.encryption.clone(), self.of_caller.clone());
        let context = once.context();
        let respond = move |delivery: Option<&Delivery>| {
            let response = respond(delivery).map_err(StorageError::failed)?;
            let sealed = match &of_caller {
                Some(keys) => keys
                    .seal(&context, &response)
                    .map(|sealed| format!("{OF_CALLER}{sealed}")),
                None => Ok(response),
            };
            let sealed = sealed.and_then(|response| of_server.seal(&context, &response));
            sealed.map_err(StorageError::failed)
        };
        Keep {
            once,
            respond: Arc::new(respond),
        }
    }

    /// The response that was kept.
    fn open(&self, kept: &str) -> Result<String, ApiError> {
        let context = self.once.as_ref().map(Once::context).unwrap_or_default();
        let opened = self.app.encryption.open(&context, kept);
        let opened = opened.map_err(|error| {
            report_unreadable(&error);
            ApiError::response_unreadable()
        })?;
        let Some(keys) = &self.of_caller else {
            return Ok(opened);
        };
        let sealed = opened.strip_prefix(OF_CALLER).ok_or(SealError::UnknownForm);
        let opened = sealed.and_then(|sealed| keys.open(&context, sealed));
        opened.map_err(|error| {
            report_unreadable(&error);
            ApiError::response_of_another_caller()
        })
    }
}

fn report_unreadable(error: &SealError) {
    let error: &dyn std::error::Error = error;
    tracing::info!(error, "cannot repeat a response that was kept");
}

/// What is in front of a response that is sealed with a key of its caller, so that the keys of the server do not take
/// it for theirs.
const OF_CALLER: &str = "of-caller:";

/// Tells the parts of this server that work on what has changed.
async fn announce(app: &App, change: &Change, delivery: Option<&Delivery>) {
    match change {
        Change::CreateEndpoint(endpoint) => app.webhooks.announce_endpoint(endpoint),
        Change::CreateKey { .. } => app.access.learn_of_change().await,
        Change::Operate(operation) => app.webhooks.announce_operation(operation, delivery),
    }
}
