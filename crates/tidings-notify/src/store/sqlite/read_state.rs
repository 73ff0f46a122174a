//! Marking events as read, with the exact count of what is left.

use jiff::Timestamp;
use rusqlite::Transaction;

use super::log::{Log, find_log};
use super::schema::{clamp_seq, key};
use crate::read::{Marked, ReadChange, ReadScope, ReadUpdate};
use crate::{EventId, Head, StoreError, UserId};

pub(super) fn mark(
    tx: &Transaction<'_>,
    user: &UserId,
    scope: &ReadScope,
    at: Timestamp,
) -> Result<ReadUpdate, StoreError> {
    let Some(log) = find_log(tx, user)? else {
        return Ok(ReadUpdate::nothing());
    };
    let (marked, changed) = match scope {
        ReadScope::Ids(ids) => mark_ids(tx, &log, ids, at)?,
        ReadScope::UpTo(id) => mark_up_to(tx, &log, *id, at)?,
        ReadScope::All => mark_up_to(tx, &log, log.head.top(), at)?,
    };
    if changed > 0 {
        count_off(tx, log.id, changed)?;
    }
    let head = Head {
        unread: log.head.unread.saturating_sub(changed),
        read_revision: log.head.read_revision + u64::from(changed > 0),
        ..log.head
    };
    Ok(update(&head, marked, changed))
}

fn update(head: &Head, marked: Marked, changed: u64) -> ReadUpdate {
    ReadUpdate {
        changed,
        revision: head.read_revision,
        change: ReadChange {
            marked,
            unread: head.unread,
            as_of: head.top(),
        },
    }
}

fn mark_ids(
    tx: &Transaction<'_>,
    log: &Log,
    ids: &[EventId],
    at: Timestamp,
) -> Result<(Marked, u64), StoreError> {
    let mut statement = tx.prepare_cached(
        "UPDATE notify_event SET read_at = ?2 WHERE key = ?1 AND read_at IS NULL",
    )?;
    let kept = log.head.first_seq..=log.head.top_seq;
    let mut marked = Vec::new();
    for id in ids {
        if id.epoch != log.head.epoch || !kept.contains(&id.seq) {
            continue;
        }
        if statement.execute((key(log.id, clamp_seq(id.seq))?, at.as_microsecond()))? > 0 {
            marked.push(*id);
        }
    }
    let changed = marked.len() as u64;
    Ok((Marked::Ids(marked.into()), changed))
}

fn mark_up_to(
    tx: &Transaction<'_>,
    log: &Log,
    id: EventId,
    at: Timestamp,
) -> Result<(Marked, u64), StoreError> {
    if id.epoch != log.head.epoch {
        return Ok((Marked::Ids([].into()), 0));
    }
    let last = id.seq.min(log.head.top_seq);
    let changed = tx
        .prepare_cached(
            "UPDATE notify_event INDEXED BY notify_event_unread SET read_at = ?3
             WHERE key BETWEEN ?1 AND ?2 AND read_at IS NULL",
        )?
        .execute((
            key(log.id, clamp_seq(log.head.first_seq))?,
            key(log.id, clamp_seq(last))?,
            at.as_microsecond(),
        ))?;
    let marked = Marked::UpTo(EventId::new(id.epoch, last));
    Ok((marked, changed as u64))
}

/// Takes events off a log's count of unread ones, as a change that streams hear of.
pub(super) fn count_off(tx: &Transaction<'_>, log: i64, events: u64) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE notify_log SET
             unread = unread - ?2,
             read_revision = read_revision + 1,
             changed = (SELECT max(changed) + 1 FROM notify_log)
         WHERE id = ?1",
    )?
    .execute((log, events))?;
    Ok(())
}
