//! Accepting: the transaction of a batch of requests.
//!
//! ```text
//! BEGIN, lock the keys and look them up        one round trip, if a request of the batch has a key
//! append the events, ask for their endpoints   one round trip
//! hand over to the fan-out, record the keys,
//! COMMIT                                       one round trip, and one wait for the disk
//! ```
//!
//! A repeat stores nothing. Its transaction waits with others for the standby, if there is one, to have what the
//! repeat has found.
//!
//! Nothing in it notifies: the server makes commits that notify one after the other.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tidings_notify::postgres::{CallOutcome, append_calls_in, append_in};
use tidings_notify::{Draft, Store as _};
use tidings_postgres::Database;
use tidings_postgres::tokio_postgres::Client;
use tidings_stream::StreamName;
use tidings_webhooks::WebhookEvent;
use tidings_webhooks::postgres::{hand_over_in, interest_in};
use tokio::time::{Instant, sleep};

use super::commit::{self, Unconfirmed};
use super::requests::{self, Record, Recording};
use super::{Known, failure, transaction};
use crate::idempotency::Once;
use crate::stored::{self, Kept};
use crate::{Accept, Accepted, StorageError};

/// What became of one request of a batch.
#[derive(Debug)]
pub(super) enum Outcome {
    Done(Accepted),
    /// Another transaction holds its key, or the log of one of its users. Nothing of it was stored.
    Busy,
    /// Another transaction is creating the log of one of its users, which takes a moment to notice each time. Nothing
    /// of it was stored.
    BeingCreated,
    /// No time was left for the logs of its users, because so many were being created. Nothing of it was stored.
    Untried,
}

impl Outcome {
    fn is_repeat(&self) -> bool {
        matches!(self, Self::Done(Accepted::Repeated(_)))
    }
}

/// The first pause between two questions about a transaction whose end is not known.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// What becomes of a request with a user whose log another transaction has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Locks {
    /// It is left out.
    LeaveOut,
    /// The transaction waits, and is the next one to have the log.
    Wait,
}

/// The longest wait for one lock. Most are held while another transaction commits, and a log that several
/// instances write has a queue of them; meanwhile the locks that the transaction has got delay others.
const LOCK_LIMIT: &str = "SET LOCAL lock_timeout = '500ms'";

/// What accepts batches, one at a time.
#[derive(Debug)]
pub(super) struct Acceptor {
    /// Nothing else uses this connection: a transaction is several statements.
    pub(super) database: Database,
    /// What begins a transaction.
    pub(super) begin: String,
    pub(super) logs: tidings_notify::postgres::PostgresStore,
    pub(super) stream: StreamName,
    pub(super) unconfirmed: Unconfirmed,
}

/// How far a transaction has come.
#[derive(Debug, Default)]
struct Progress {
    id: Mutex<Option<String>>,
    outcomes: Mutex<Option<Vec<Outcome>>>,
    is_committing: AtomicBool,
}

impl Acceptor {
    /// Accepts requests in one transaction, each as a whole or not at all, and returns what became of
    /// each. If it waits for locks, it waits for each one [`LOCK_LIMIT`] at most.
    ///
    /// # Errors
    ///
    /// [`StorageError`] when nothing of the whole batch was stored, or when that cannot be found out:
    /// [`StorageError::OutcomeUnknown`].
    pub(super) async fn accept(
        &self,
        requests: &[&Accept],
        locks: Locks,
    ) -> Result<Vec<Outcome>, StorageError> {
        self.unconfirmed.has_ended(&self.database).await?;
        let progress = Progress::default();
        let run = self.database.run(|client| {
            transaction(client, async |client| {
                self.run(client, requests, locks, &progress).await
            })
        });
        match run.await {
            Ok(outcome) => outcome,
            Err(error)
                if error.may_have_been_done() && progress.is_committing.load(Ordering::Relaxed) =>
            {
                self.find_out(progress, error).await
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn run(
        &self,
        connection: &tidings_postgres::Client,
        requests: &[&Accept],
        locks: Locks,
        progress: &Progress,
    ) -> Result<Vec<Outcome>, StorageError> {
        let client: &Client = connection;
        let mut plan = Plan::default();
        if requests.iter().any(|request| request.once.is_some()) {
            let keyed: Vec<&Once> = requests.iter().filter_map(|it| it.once.as_ref()).collect();
            let (begun, known) = futures_util::join!(
                client.batch_execute(&self.begin),
                requests::claim(client, &keyed)
            );
            begun.map_err(failure)?;
            plan.decide(requests, known?)?;
        } else {
            client.batch_execute(&self.begin).await.map_err(failure)?;
            plan.append = (0..requests.len()).collect();
        }
        let drafts: Vec<&[Draft]> = plan
            .append
            .iter()
            .map(|&place| requests[place].drafts.as_slice())
            .collect();
        let users: Vec<_> = drafts
            .iter()
            .flat_map(|drafts| drafts.iter().map(Draft::user))
            .collect();
        let (appended, interest, id) = futures_util::join!(
            append(client, &drafts, locks),
            interest_in(client, users),
            commit::transaction_id(client),
        );
        let (appended, interest) = (appended?, interest?);
        put(&progress.id, id?);

        let mut outgoing: Vec<WebhookEvent> = Vec::new();
        let mut outcomes: Vec<Option<Outcome>> = plan.decided;
        outcomes.resize_with(requests.len(), || None);
        for (&place, events) in plan.append.iter().zip(appended) {
            outcomes[place] = Some(match events {
                CallOutcome::Locked => Outcome::Busy,
                CallOutcome::BeingCreated(_) => Outcome::BeingCreated,
                CallOutcome::Untried => Outcome::Untried,
                CallOutcome::Appended(events) => {
                    let has_webhooks = events
                        .iter()
                        .any(|event| interest.includes(Some(&event.user)));
                    outgoing.extend(events.iter().map(WebhookEvent::from));
                    Outcome::Done(Accepted::Stored {
                        events,
                        has_webhooks,
                    })
                }
            });
        }
        let outcomes: Vec<Outcome> = outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or(Outcome::Busy))
            .collect();
        let stored = requests.iter().zip(&outcomes);
        let records = stored.filter_map(|(request, outcome)| match (&request.once, outcome) {
            (Some(once), Outcome::Done(Accepted::Stored { events, .. })) => Some(Record {
                once,
                kept: Kept::Events(events),
            }),
            _ => None,
        });
        let records = Recording::new(records)?;
        let has_repeats = outcomes.iter().any(Outcome::is_repeat);
        put(&progress.outcomes, outcomes);
        // Sent at once and in this order. If one of those before the commit is refused, the server makes a
        // rollback of it; if one of them cannot be sent, the commit is not sent either.
        let (_committing, ()) = futures_util::try_join!(
            async {
                futures_util::try_join!(
                    async {
                        let handed_over = hand_over_in(client, &self.stream, &interest, &outgoing);
                        handed_over.await.map_err(StorageError::from)
                    },
                    records.store(client),
                    async {
                        if has_repeats {
                            commit::confirm_in(client).await
                        } else {
                            Ok(())
                        }
                    },
                )?;
                Ok(connection.committing())
            },
            async {
                progress.is_committing.store(true, Ordering::Relaxed);
                client.batch_execute("COMMIT").await.map_err(failure)
            },
        )?;
        let outcomes = lock(&progress.outcomes).take();
        Ok(outcomes.unwrap_or_default())
    }

    /// Asks what became of a transaction whose commit was sent and not confirmed.
    async fn find_out(
        &self,
        progress: Progress,
        error: tidings_postgres::Error,
    ) -> Result<Vec<Outcome>, StorageError> {
        let unknown = || StorageError::OutcomeUnknown {
            source: error.clone().into(),
        };
        let inner =
            |lock: Mutex<Option<_>>| lock.into_inner().unwrap_or_else(PoisonError::into_inner);
        let id: Option<String> = progress
            .id
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let (Some(id), Some(outcomes)) = (id, inner(progress.outcomes)) else {
            return Err(unknown());
        };
        let limit = self.database.config().reply_limit();
        let give_up_at = Instant::now() + limit;
        let mut pause = PAUSE;
        loop {
            match commit::status(&self.database, &id).await.as_deref() {
                Ok("committed") if self.is_there(&outcomes).await => {
                    let confirmed = commit::confirm(&self.database).await;
                    return confirmed.map(|()| outcomes).map_err(|_| unknown());
                }
                Ok("aborted") => return Err(error.into()),
                // It still ends, or the server cannot be asked yet.
                Ok("in progress") | Err(_) if Instant::now() < give_up_at => {}
                _ => {
                    self.unconfirmed.remember(id);
                    return Err(unknown());
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(limit / 4);
        }
    }

    /// Whether the events are there: after a failover, another transaction can have the same number. Then they prove
    /// that all is there that the transaction had found. Repeats alone are not proved: their callers ask again.
    async fn is_there(&self, outcomes: &[Outcome]) -> bool {
        let event = outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Done(Accepted::Stored { events, .. }) => events.first(),
            _ => None,
        });
        let Some(event) = event else {
            return !outcomes.iter().any(Outcome::is_repeat);
        };
        let found = self.logs.find(&event.user, event.id).await;
        found.is_ok_and(|found| found.as_ref() == Some(event))
    }
}

/// Appends the drafts of each request.
async fn append(
    client: &Client,
    requests: &[&[Draft]],
    locks: Locks,
) -> Result<Vec<CallOutcome>, StorageError> {
    if locks == Locks::LeaveOut {
        return Ok(append_calls_in(client, requests).await?);
    }
    let limited = client.batch_execute(LOCK_LIMIT);
    let all = requests.concat();
    let (limited, events) = futures_util::join!(limited, append_in(client, &all));
    limited.map_err(failure)?;
    let mut events = events?.into_iter();
    let of_request = |drafts: &&[Draft]| {
        let own = events.by_ref().take(drafts.len());
        CallOutcome::Appended(own.collect())
    };
    Ok(requests.iter().map(of_request).collect())
}

/// What is to be done for each request of a batch.
#[derive(Default)]
struct Plan {
    decided: Vec<Option<Outcome>>,
    /// The places of those whose events are appended.
    append: Vec<usize>,
}

impl Plan {
    fn decide(&mut self, requests: &[&Accept], known: Vec<Known>) -> Result<(), StorageError> {
        let mut known = known.into_iter();
        let mut keys = HashSet::new();
        for (place, request) in requests.iter().enumerate() {
            let known = match &request.once {
                None => Known::New,
                Some(once) => match known.next() {
                    // The first one of a batch is stored, and the others are its repeats in the next.
                    Some(Known::New) if !keys.insert(once.key.as_str()) => Known::Busy,
                    known => known.unwrap_or(Known::Busy),
                },
            };
            self.decided.push(match known {
                Known::New => {
                    self.append.push(place);
                    None
                }
                Known::Busy => Some(Outcome::Busy),
                Known::Conflict => Some(Outcome::Done(Accepted::Conflict)),
                Known::Repeated { events, .. } => {
                    let events = stored::decode(request.drafts.clone(), &events)?;
                    Some(Outcome::Done(Accepted::Repeated(events)))
                }
            });
        }
        Ok(())
    }
}

fn put<T>(place: &Mutex<Option<T>>, value: T) {
    *lock(place) = Some(value);
}

fn lock<T>(place: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Its one field is written at once, so a poisoned lock is still right.
    place.lock().unwrap_or_else(PoisonError::into_inner)
}
