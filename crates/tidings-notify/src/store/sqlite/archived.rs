//! The runs of archived events, which a list of the inbox skips.
//!
//! A row has the keys of the first and the last event of a run: of archived events without another event in between. A
//! notification with a key archives the one before it, so that most runs only get longer, and a list reads one row for
//! any number of them.

use rusqlite::{Connection, OptionalExtension, Transaction};

use crate::StoreError;

/// The first and the last event of the run that has an event.
fn run_of(connection: &Connection, event: i64) -> Result<Option<(i64, i64)>, StoreError> {
    let run = connection
        .prepare_cached(
            "SELECT key, last FROM notify_archived WHERE key <= ?1 ORDER BY key DESC LIMIT 1",
        )?
        .query_row([event], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(run.filter(|(_, last)| event <= *last))
}

/// The event before the run that has this one.
pub(super) fn below(connection: &Connection, event: i64) -> Result<i64, StoreError> {
    let run = run_of(connection, event)?;
    Ok(run.map_or(event, |(first, _)| first) - 1)
}

/// Notes that an event is archived.
pub(super) fn add(tx: &Transaction<'_>, event: i64) -> Result<(), StoreError> {
    let above = run_of(tx, event + 1)?;
    if let Some((first, _)) = above {
        delete(tx, first)?;
    }
    let last = above.map_or(event, |(_, last)| last);
    match run_of(tx, event - 1)? {
        Some((first, _)) => update(tx, first, last),
        None => insert(tx, event, last),
    }
}

/// Notes that an event is back in the inbox.
pub(super) fn remove(tx: &Transaction<'_>, event: i64) -> Result<(), StoreError> {
    let Some((first, last)) = run_of(tx, event)? else {
        return Ok(());
    };
    if first < event {
        update(tx, first, event - 1)?;
    } else {
        delete(tx, first)?;
    }
    if event < last {
        insert(tx, event + 1, last)?;
    }
    Ok(())
}

/// Forgets the events of a log from its first to its last that is gone.
pub(super) fn trim(tx: &Transaction<'_>, first: i64, gone: i64) -> Result<(), StoreError> {
    let last = run_of(tx, gone)?.map_or(gone, |(_, last)| last);
    tx.prepare_cached("DELETE FROM notify_archived WHERE key BETWEEN ?1 AND ?2")?
        .execute((first, gone))?;
    if gone < last {
        insert(tx, gone + 1, last)?;
    }
    Ok(())
}

fn insert(tx: &Transaction<'_>, first: i64, last: i64) -> Result<(), StoreError> {
    tx.prepare_cached("INSERT INTO notify_archived (key, last) VALUES (?1, ?2)")?
        .execute((first, last))?;
    Ok(())
}

fn update(tx: &Transaction<'_>, first: i64, last: i64) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE notify_archived SET last = ?2 WHERE key = ?1")?
        .execute((first, last))?;
    Ok(())
}

fn delete(tx: &Transaction<'_>, first: i64) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM notify_archived WHERE key = ?1")?
        .execute([first])?;
    Ok(())
}
