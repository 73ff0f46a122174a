//! Changing the inbox, with exact counts of what is left.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::Transaction;

use super::archived;
use super::log::{Log, find_log};
use super::schema::{clamp_seq, key};
use super::state::{State, unread_passed};
use crate::change::{Changed, InboxAction, InboxChange, InboxUpdate};
use crate::{EventId, StoreError, UserId};

pub(super) fn change(
    tx: &Transaction<'_>,
    user: &UserId,
    action: &InboxAction,
    at: Timestamp,
) -> Result<InboxUpdate, StoreError> {
    let Some(mut log) = find_log(tx, user)? else {
        return Ok(InboxUpdate::nothing());
    };
    let at = at.as_microsecond();
    let top = log.head.top();
    let (changed, what) = match action {
        InboxAction::Read(ids) => each(tx, &mut log, ids, at, read, Changed::Read)?,
        InboxAction::Unread(ids) => each(tx, &mut log, ids, at, unread, Changed::Unread)?,
        InboxAction::Archive(ids) => each(tx, &mut log, ids, at, archive, Changed::Archived)?,
        InboxAction::Unarchive(ids) => each(tx, &mut log, ids, at, unarchive, Changed::Unarchived)?,
        InboxAction::ReadUpTo(id) => read_up_to(tx, &mut log, *id, at)?,
        InboxAction::ReadAll => read_up_to(tx, &mut log, top, at)?,
        InboxAction::SeeUpTo(id) => see_up_to(tx, &mut log, *id)?,
        InboxAction::SeeAll => see_up_to(tx, &mut log, top)?,
    };
    if changed > 0 {
        log.head.revision += 1;
        save_counts(tx, &log)?;
    }
    Ok(InboxUpdate {
        changed,
        revision: log.head.revision,
        change: InboxChange {
            what,
            unread: log.head.unread,
            unseen: log.head.unseen,
            cursor: top,
        },
    })
}

/// Writes the counts and the revision of a log, as a change that streams hear of.
pub(super) fn save_counts(tx: &Transaction<'_>, log: &Log) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE notify_log SET unread = ?2, unseen = ?3, revision = ?4,
             changed = (SELECT max(changed) + 1 FROM notify_log)
         WHERE id = ?1",
    )?
    .execute((log.id, log.head.unread, log.head.unseen, log.head.revision))?;
    Ok(())
}

impl Log {
    /// Whether an event of this log is kept.
    fn has(&self, id: EventId) -> bool {
        id.epoch == self.head.epoch && (self.head.first_seq..=self.head.top_seq).contains(&id.seq)
    }

    fn count(&mut self, seq: u64, more: bool) {
        let is_unseen = u64::from(seq > self.seen_seq);
        let head = &mut self.head;
        if more {
            head.unread += 1;
            head.unseen += is_unseen;
        } else {
            head.unread = head.unread.saturating_sub(1);
            head.unseen = head.unseen.saturating_sub(is_unseen);
        }
    }
}

/// The state that an event gets; `None` if it does not change.
type Transition = fn(&Log, u64, State, i64) -> Option<State>;

fn each(
    tx: &Transaction<'_>,
    log: &mut Log,
    ids: &[EventId],
    at: i64,
    next: Transition,
    what: fn(Arc<[EventId]>) -> Changed,
) -> Result<(u64, Changed), StoreError> {
    let mut changed = Vec::new();
    for id in ids.iter().copied() {
        if !log.has(id) {
            continue;
        }
        let state = State::of(tx, log, id.seq)?;
        if let Some(next) = next(log, id.seq, state, at) {
            set(tx, log, id.seq, state, next)?;
            changed.push(id);
        }
    }
    Ok((changed.len() as u64, what(changed.into())))
}

fn read(log: &Log, seq: u64, state: State, at: i64) -> Option<State> {
    let read = State {
        read_at: Some(at),
        is_unread: false,
        ..state
    };
    (!state.is_read(log, seq)).then_some(read)
}

fn unread(log: &Log, seq: u64, state: State, _: i64) -> Option<State> {
    let unread = State {
        read_at: None,
        is_unread: true,
        ..state
    };
    state.is_read(log, seq).then_some(unread)
}

fn archive(log: &Log, seq: u64, state: State, at: i64) -> Option<State> {
    let archived = State {
        archived_at: Some(at),
        is_unread: !state.is_read(log, seq),
        ..state
    };
    state.archived_at.is_none().then_some(archived)
}

fn unarchive(_: &Log, _: u64, state: State, _: i64) -> Option<State> {
    let back = State {
        archived_at: None,
        ..state
    };
    state.archived_at.is_some().then_some(back)
}

/// Archives an event that a later one replaces, and counts it no more.
pub(super) fn replace(
    tx: &Transaction<'_>,
    log: &mut Log,
    seq: u64,
    state: State,
    at: i64,
) -> Result<(), StoreError> {
    match archive(log, seq, state, at) {
        Some(archived) => set(tx, log, seq, state, archived),
        None => Ok(()),
    }
}

/// Gives an event another state. An event in the archive has no key, and is not counted.
fn set(
    tx: &Transaction<'_>,
    log: &mut Log,
    seq: u64,
    before: State,
    after: State,
) -> Result<(), StoreError> {
    let is_counted = |state: State| !state.is_read(log, seq) && state.archived_at.is_none();
    let (was_counted, is_counted) = (is_counted(before), is_counted(after));
    save(tx, log, seq, after)?;
    let event = key(log.id, clamp_seq(seq))?;
    let statement = match (before.archived_at, after.archived_at) {
        (None, Some(_)) => {
            archived::add(tx, event)?;
            Some(
                "DELETE FROM notify_key WHERE log = ?1 AND seq = ?2
                 AND event_key = (SELECT event_key FROM notify_event WHERE key = ?3)",
            )
        }
        (Some(_), None) => {
            archived::remove(tx, event)?;
            Some(
                "INSERT INTO notify_key (log, event_key, seq)
                 SELECT ?1, event_key, ?2 FROM notify_event WHERE key = ?3 AND event_key IS NOT NULL",
            )
        }
        _ => None,
    };
    if let Some(statement) = statement {
        tx.prepare_cached(statement)?
            .execute((log.id, clamp_seq(seq), event))?;
    }
    if was_counted != is_counted {
        log.count(seq, is_counted);
    }
    Ok(())
}

fn save(tx: &Transaction<'_>, log: &Log, seq: u64, state: State) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO notify_state (key, read_at, is_unread, archived_at)
         VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute((
        key(log.id, clamp_seq(seq))?,
        state.read_at,
        state.is_unread,
        state.archived_at,
    ))?;
    Ok(())
}

fn read_up_to(
    tx: &Transaction<'_>,
    log: &mut Log,
    id: EventId,
    at: i64,
) -> Result<(u64, Changed), StoreError> {
    let Some(last) = id.clamped(log.head.top()) else {
        return Ok((0, Changed::Read([].into())));
    };
    let what = Changed::ReadUpTo(last);
    // The number up to which all is read only rises, as does that of what was seen: what is passed is counted once.
    let below = log.head.first_seq - 1;
    let changed = unread_passed(tx, log, below, last.seq, log.head.unread)?;
    if changed > 0 {
        // Those that were put back to unread have been changed one by one before.
        tx.prepare_cached(
            "UPDATE notify_state INDEXED BY notify_state_unread SET read_at = ?3, is_unread = 0
             WHERE key BETWEEN ?1 AND ?2 AND is_unread = 1 AND archived_at IS NULL",
        )?
        .execute((
            key(log.id, clamp_seq(log.head.first_seq))?,
            key(log.id, clamp_seq(last.seq))?,
            at,
        ))?;
    }
    if last.seq > log.read_seq {
        if changed > 0 {
            tx.prepare_cached("INSERT INTO notify_read_mark (log, up_to, at) VALUES (?1, ?2, ?3)")?
                .execute((log.id, last.seq, at))?;
        }
        // Without a change, too: all events up to there have states of their own then.
        tx.prepare_cached("UPDATE notify_log SET read_seq = ?2 WHERE id = ?1")?
            .execute((log.id, last.seq))?;
        log.read_seq = last.seq;
    }
    log.head.unread = log.head.unread.saturating_sub(changed);
    if last.seq >= log.seen_seq {
        log.head.unseen = log.head.unread;
    }
    Ok((changed, what))
}

fn see_up_to(
    tx: &Transaction<'_>,
    log: &mut Log,
    id: EventId,
) -> Result<(u64, Changed), StoreError> {
    let Some(last) = id.clamped(log.head.top()) else {
        return Ok((0, Changed::Read([].into())));
    };
    let what = Changed::SeenUpTo(last);
    if last.seq <= log.seen_seq {
        return Ok((0, what));
    }
    let changed = unread_passed(tx, log, log.seen_seq, last.seq, log.head.unseen)?;
    tx.prepare_cached("UPDATE notify_log SET seen_seq = ?2 WHERE id = ?1")?
        .execute((log.id, last.seq))?;
    log.seen_seq = last.seq;
    log.head.unseen = log.head.unseen.saturating_sub(changed);
    Ok((changed, what))
}
