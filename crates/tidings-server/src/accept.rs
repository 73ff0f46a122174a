//! Accepting notifications: the one transaction that a 201 stands for.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::Transaction;
use tidings::Message;
use tidings_notify::{Draft, Event, Notifier, StoreError, UserId};
use tidings_sqlite::Database;
use tidings_stream::{NewMessage, Streams};
use tokio_util::task::TaskTracker;

use crate::dispatch::WebhookQueue;
use crate::endpoints::Endpoint;
use crate::idempotency::{Idempotent, Known};
use crate::{deliveries, endpoints};

/// Why notifications were not accepted. Nothing of them was stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptError {
    #[error("the idempotency key was used for a request with another body")]
    IdempotencyConflict,
    #[error(transparent)]
    Database(#[from] tidings_sqlite::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot publish the webhook deliveries")]
    Stream(#[from] tidings_stream::Error),
    #[error("cannot encode the response")]
    Encode(#[from] serde_json::Error),
}

impl From<rusqlite::Error> for AcceptError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Writes the JSON that answers a request, from the events that it became.
pub(crate) type Answer = fn(&[Event]) -> serde_json::Result<String>;

/// Stores notifications and sets their deliveries going.
#[derive(Debug, Clone)]
pub(crate) struct Acceptor {
    database: Database,
    notifier: Notifier,
    streams: Streams,
    webhooks: Arc<WebhookQueue>,
    tasks: TaskTracker,
}

impl Acceptor {
    pub(crate) fn new(
        database: Database,
        notifier: Notifier,
        streams: Streams,
        webhooks: WebhookQueue,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            database,
            notifier,
            streams,
            webhooks: Arc::new(webhooks),
            tasks,
        }
    }

    /// Stores the notifications, all or none, and answers with the JSON for the caller.
    ///
    /// When it answers, the logs, the unread counts, the webhook deliveries and the idempotency key
    /// are on disk, by one commit. Open streams and webhook workers are told right after.
    ///
    /// A caller that goes away stops nothing: what may already be committed is also announced.
    pub(crate) async fn accept(
        &self,
        drafts: Vec<Draft>,
        idempotent: Option<Idempotent>,
        answer: Answer,
    ) -> Result<String, AcceptError> {
        let acceptor = self.clone();
        self.tasks
            .spawn(async move {
                acceptor
                    .store_and_announce(drafts, idempotent, answer)
                    .await
            })
            .await
            .unwrap_or(Err(AcceptError::Database(tidings_sqlite::Error::Panicked)))
    }

    async fn store_and_announce(
        &self,
        drafts: Vec<Draft>,
        idempotent: Option<Idempotent>,
        answer: Answer,
    ) -> Result<String, AcceptError> {
        let webhooks = Arc::clone(&self.webhooks);
        let stored = self
            .database
            .write(move |tx| store(tx, &drafts, idempotent.as_ref(), &webhooks, answer))
            .await?;
        self.notifier.announce(&stored.events);
        if stored.has_webhooks {
            self.streams.wake(&self.webhooks.stream);
        }
        Ok(stored.answer)
    }
}

struct Stored {
    answer: String,
    /// What is new; a repeated request adds nothing.
    events: Vec<Event>,
    has_webhooks: bool,
}

fn store(
    tx: &Transaction<'_>,
    drafts: &[Draft],
    idempotent: Option<&Idempotent>,
    webhooks: &WebhookQueue,
    answer: Answer,
) -> Result<Stored, AcceptError> {
    if let Some(request) = idempotent {
        match request.look_up(tx)? {
            Known::New => {}
            Known::Conflict => return Err(AcceptError::IdempotencyConflict),
            Known::Repeat(answer) => {
                return Ok(Stored {
                    answer,
                    events: Vec::new(),
                    has_webhooks: false,
                });
            }
        }
    }
    let events = tidings_notify::sqlite::append_in(tx, drafts)?;
    let has_webhooks = store_deliveries(tx, &events, webhooks)?;
    let answer = answer(&events)?;
    if let Some(request) = idempotent {
        request.record(tx, &answer)?;
    }
    Ok(Stored {
        answer,
        events,
        has_webhooks,
    })
}

/// Makes one delivery for each event and each endpoint that wants it, and queues them.
fn store_deliveries(
    tx: &Transaction<'_>,
    events: &[Event],
    webhooks: &WebhookQueue,
) -> Result<bool, AcceptError> {
    let mut endpoints_of: HashMap<&UserId, Vec<Endpoint>> = HashMap::new();
    let due_at = webhooks.first_due();
    let mut queue = Vec::new();
    for event in events {
        if !endpoints_of.contains_key(&event.user) {
            endpoints_of.insert(&event.user, endpoints::of_events(tx, &event.user)?);
        }
        let endpoints = endpoints_of.get(&event.user).into_iter().flatten();
        let mut message = None;
        for endpoint in endpoints {
            if endpoint.wants(&event.event_type) {
                let message = message.get_or_insert_with(|| Message::from_event(event));
                let id = deliveries::create(tx, message, endpoint, due_at)?;
                queue.push(NewMessage::new(id));
            }
        }
    }
    if !queue.is_empty() {
        tidings_stream::sqlite::publish_in(tx, &webhooks.stream, &queue)?;
    }
    Ok(!queue.is_empty())
}
