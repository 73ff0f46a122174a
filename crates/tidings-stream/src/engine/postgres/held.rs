//! Waiting for the row of a group that another transaction holds, without a connection.
//!
//! A transaction that settles a message of its handler's holds the row until its commit. A statement gives up
//! soon then, and is tried again. Of all calls that wait for one row, one is tried at a time, and on a part of the
//! connections alone, so that they never take those of calls about other groups.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::tokio_postgres::error::SqlState;
use tidings_postgres::tokio_postgres::types::FromSqlOwned;
use tidings_postgres::{Connections, Error as DatabaseError, Typed};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use super::rows::{get, rows};
use crate::engine::GroupKey;
use crate::{GroupName, Result, StreamName};

/// Time until the next attempt: at first, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(200)];

/// The rows that other transactions hold, as far as calls wait for them.
#[derive(Debug)]
pub(super) struct Held {
    rows: Mutex<HashMap<Target, Arc<HeldRow>>>,
    /// One permit for each call that may be tried again at the same time, whatever it waits for.
    attempts: Semaphore,
    /// How long one call waits.
    limit: Duration,
}

/// A group, or all groups of a stream.
type Target = (StreamName, Option<GroupName>);

#[derive(Debug)]
struct HeldRow {
    /// One permit, for the call that is tried. It is closed once the row was free.
    turn: Arc<Semaphore>,
    /// What the database said to the first call.
    error: DatabaseError,
}

/// A call that waits for a row.
#[derive(Debug)]
struct Waiting<'a> {
    held: &'a Held,
    target: &'a Target,
    row: Arc<HeldRow>,
}

/// How calls about groups get to the database.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups<'a> {
    pub(super) connections: &'a Connections,
    pub(super) held: &'a Held,
}

impl Groups<'_> {
    /// The one row of a statement that locks the row of a group.
    pub(super) async fn row(
        self,
        group: &GroupKey,
        statement: &str,
        parameters: &[&dyn Typed],
    ) -> Result<Option<Row>, DatabaseError> {
        let target = (group.stream.clone(), Some(group.group.clone()));
        self.row_of(&target, statement, parameters).await
    }

    /// The same for a statement that locks those of all groups of a stream.
    pub(super) async fn row_of_all(
        self,
        stream: &StreamName,
        statement: &str,
        parameters: &[&dyn Typed],
    ) -> Result<Option<Row>, DatabaseError> {
        let target = (stream.clone(), None);
        self.row_of(&target, statement, parameters).await
    }

    /// The one column of the one row of a statement that locks the row of a group.
    pub(super) async fn value<T: FromSqlOwned>(
        self,
        group: &GroupKey,
        statement: &str,
        parameters: &[&dyn Typed],
    ) -> Result<T> {
        let row = self.row(group, statement, parameters).await?;
        get(&row.ok_or(DatabaseError::NoRow)?, 0)
    }

    async fn row_of(
        self,
        target: &Target,
        statement: &str,
        parameters: &[&dyn Typed],
    ) -> Result<Option<Row>, DatabaseError> {
        let give_up_at = Instant::now() + self.held.limit;
        let mut waiting = self.held.find(target);
        let mut turn = None;
        let mut pause = PAUSES[0];
        loop {
            if let Some(Waiting { row, .. }) = &waiting
                && turn.is_none()
            {
                let taking = Arc::clone(&row.turn).acquire_owned();
                let taken = timeout_at(give_up_at, taking).await;
                turn = taken.map_err(|_elapsed| row.error.clone())?.ok();
            }
            let attempt = match (&waiting, &turn) {
                (Some(Waiting { held, row, .. }), Some(_)) => {
                    let permit = timeout_at(give_up_at, held.attempts.acquire()).await;
                    permit.map_err(|_elapsed| row.error.clone())?.ok()
                }
                _ => None,
            };
            let replied = rows(self.connections, statement, parameters).await;
            drop(attempt);
            let error = match replied {
                Err(error) if is_held(&error) => error,
                replied => {
                    if let Some(waiting) = waiting {
                        waiting.let_all_go();
                    }
                    return Ok(replied?.pop());
                }
            };
            if Instant::now() >= give_up_at {
                return Err(error);
            }
            if turn.is_none() {
                waiting = Some(self.held.add(target, error));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES[1]);
        }
    }
}

impl Held {
    /// For so many connections.
    pub(super) fn new(limit: Duration, connections: usize) -> Self {
        Self {
            rows: Mutex::default(),
            attempts: Semaphore::new((connections / 2).max(1)),
            limit,
        }
    }

    fn find<'a>(&'a self, target: &'a Target) -> Option<Waiting<'a>> {
        let row = self.lock().get(target).cloned()?;
        Some(Waiting {
            held: self,
            target,
            row,
        })
    }

    fn add<'a>(&'a self, target: &'a Target, error: DatabaseError) -> Waiting<'a> {
        let row = || {
            Arc::new(HeldRow {
                turn: Arc::new(Semaphore::new(1)),
                error,
            })
        };
        let row = Arc::clone(self.lock().entry(target.clone()).or_insert_with(row));
        Waiting {
            held: self,
            target,
            row,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Target, Arc<HeldRow>>> {
        // The map is whole after every statement, so a panic elsewhere leaves nothing half-done.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting<'_> {
    /// The row was free: all calls that wait for it are tried.
    fn let_all_go(self) {
        self.forget(&mut self.held.lock());
        self.row.turn.close();
    }

    fn forget(&self, rows: &mut HashMap<Target, Arc<HeldRow>>) {
        if rows
            .get(self.target)
            .is_some_and(|row| Arc::ptr_eq(row, &self.row))
        {
            rows.remove(self.target);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut rows = self.held.lock();
        // The map has one, and so has each call that waits.
        if Arc::strong_count(&self.row) <= 2 {
            self.forget(&mut rows);
        }
    }
}

/// Whether a statement gave up its wait for a lock. Nothing of it was done.
fn is_held(error: &DatabaseError) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}
