//! Appending, in a transaction that others may share.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction};

use super::change::{self, save_counts};
use super::log::{epoch, find_log};
use super::schema::{MAX_SEQ, key};
use super::state::State;
use crate::{Draft, Epoch, Event, EventId, EventKey, StoreError};

/// Appends drafts within the caller's own transaction, so that they are stored together with
/// everything else it writes, or not at all.
///
/// Returns one event for each draft, in the same order. Pass them to
/// [`Notifier::announce`](crate::Notifier::announce) **after** the commit and not before it, because
/// the transaction may still fail. The tables must exist, so a [`SqliteStore`](super::SqliteStore)
/// must have been opened on the file.
///
/// # Errors
///
/// [`StoreError`] when SQLite fails or numbers run out. The transaction may then hold a part of the
/// drafts and must be rolled back, as a job of [`tidings_sqlite::Database::write`] is that returns
/// the error.
pub fn append_in(tx: &Transaction<'_>, drafts: &[Draft]) -> Result<Vec<Event>, StoreError> {
    let now = Timestamp::now().as_microsecond();
    drafts
        .iter()
        .map(|draft| append_one(tx, draft, now))
        .collect()
}

fn append_one(tx: &Transaction<'_>, draft: &Draft, now: i64) -> Result<Event, StoreError> {
    let place = match next_place(tx, draft, now)? {
        Some(place) => place,
        None => new_log(tx, draft, now)?,
    };
    if place.seq > MAX_SEQ {
        return Err(StoreError::NumbersExhausted);
    }
    tx.prepare_cached(
        "INSERT INTO notify_event
             (key, timestamp, latest_at, stored_at, type, payload, event_key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute((
        key(place.log, place.seq)?,
        draft.timestamp.as_microsecond(),
        place.latest_at,
        place.stored_at,
        draft.event_type.as_str(),
        draft.payload.as_str(),
        draft.key.as_ref().map(EventKey::as_str),
    ))?;
    if let Some(key) = &draft.key {
        replace(tx, draft, key, &place)?;
    }
    let id = EventId::new(place.epoch, place.seq.unsigned_abs());
    Ok(Event::from_draft(draft.clone(), id))
}

/// Archives the events of the inbox that have the key of an event which has just been appended.
fn replace(
    tx: &Transaction<'_>,
    draft: &Draft,
    key: &EventKey,
    place: &Place,
) -> Result<(), StoreError> {
    let Some(mut log) = find_log(tx, &draft.user)? else {
        return Ok(());
    };
    let earlier: Vec<u64> = tx
        .prepare_cached("SELECT seq FROM notify_key WHERE log = ?1 AND event_key = ?2")?
        .query_map((log.id, key.as_str()), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for seq in earlier {
        let state = State::of(tx, &log, seq)?;
        change::replace(tx, &mut log, seq, state, place.stored_at)?;
    }
    tx.prepare_cached("INSERT INTO notify_key (log, event_key, seq) VALUES (?1, ?2, ?3)")?
        .execute((log.id, key.as_str(), place.seq))?;
    log.head.revision += 1;
    save_counts(tx, &log)
}

/// Where an event goes, and the log's two rising clocks once it is there.
struct Place {
    log: i64,
    epoch: Epoch,
    seq: i64,
    latest_at: i64,
    stored_at: i64,
}

/// Takes the next number of the user's log, if there is a log.
///
/// By two statements: for one with `RETURNING`, or with a subquery, SQLite keeps a copy of every page
/// that it changes.
fn next_place(tx: &Transaction<'_>, draft: &Draft, now: i64) -> Result<Option<Place>, StoreError> {
    let found = tx
        .prepare_cached(
            "SELECT id, epoch, top_seq, latest_at, stored_at,
                    (SELECT max(changed) FROM notify_log)
             FROM notify_log WHERE user = ?1",
        )?
        .query_row([draft.user.as_str()], |row| {
            let place = Place {
                log: row.get(0)?,
                epoch: epoch(row.get(1)?),
                seq: row.get::<_, i64>(2)? + 1,
                latest_at: row.get::<_, i64>(3)?.max(draft.timestamp.as_microsecond()),
                stored_at: row.get::<_, i64>(4)?.max(now),
            };
            Ok((place, row.get::<_, i64>(5)? + 1))
        })
        .optional()?;
    let Some((place, changed)) = found else {
        return Ok(None);
    };
    tx.prepare_cached(
        "UPDATE notify_log SET
             top_seq = ?2, unread = unread + 1, unseen = unseen + 1,
             latest_at = ?3, stored_at = ?4, changed = ?5
         WHERE id = ?1",
    )?
    .execute((
        place.log,
        place.seq,
        place.latest_at,
        place.stored_at,
        changed,
    ))?;
    Ok(Some(place))
}

fn new_log(tx: &Transaction<'_>, draft: &Draft, now: i64) -> Result<Place, StoreError> {
    let epoch = Epoch::random();
    let timestamp = draft.timestamp.as_microsecond();
    tx.prepare_cached(
        "INSERT INTO notify_log
                 (user, epoch, top_seq, unread, unseen, latest_at, stored_at, changed)
             VALUES (?1, ?2, 1, 1, 1, ?3, ?4,
                     (SELECT coalesce(max(changed), 0) + 1 FROM notify_log))",
    )?
    .execute((
        draft.user.as_str(),
        epoch.as_u64().cast_signed(),
        timestamp,
        now,
    ))?;
    Ok(Place {
        log: tx.last_insert_rowid(),
        epoch,
        seq: 1,
        latest_at: timestamp,
        stored_at: now,
    })
}
