//! Claiming messages for a group.

use std::num::NonZeroU32;
use std::time::Duration;

use rusqlite::{Transaction, params};

use super::content::{self, CONTENT_COLUMNS, Content};
use super::group::GroupRow;
use super::lease::Lease;
use super::schema::HELD_BACK;
use super::{clock, group, lease, schema};
use crate::engine::{
    ClaimOptions, Claimed, ClaimedMessage, ConsumerKey, MAX_HELD_BACK, Receipt, time,
};
use crate::{Error, MessageId, Result, StreamName};

/// Most expired leases that one claim takes apart.
const EXPIRED_LEASES: u32 = 8;

/// Messages of one claim that room is made for at once.
const EXPECTED: usize = 1024;

/// Payload bytes after which a claim takes no further message: all writers wait while they are
/// read.
const MAX_BYTES: usize = 4 << 20;

/// Claims what comes again and is due, then new messages.
pub(super) fn claim(
    transaction: &Transaction<'_>,
    consumer: &ConsumerKey,
    max: usize,
    options: ClaimOptions,
) -> Result<Claimed> {
    let group = group::find(transaction, &consumer.group)?.ok_or(Error::UnknownGroup)?;
    let mut claiming = Claiming {
        transaction,
        stream: &consumer.group.stream,
        consumer: &consumer.consumer,
        group,
        claim: group.claims + 1,
        now: clock::now(),
        visibility: time::millis(options.visibility),
        messages: Vec::with_capacity(max.min(EXPECTED)),
        bytes: 0,
        lost: 0,
        held_back: 0,
        cursor: group.cursor,
    };
    claiming.explode_expired_leases()?;
    let room = match options.max_in_flight {
        Some(bound) => max.min(claiming.room(bound)?),
        None => max,
    };
    claiming.take_due(room)?;
    if options.in_key_order {
        claiming.take_new_in_order(room)?;
    } else {
        claiming.take_new(room)?;
    }
    claiming.save_group()?;
    let has_room = claiming.messages.len() < room;
    let next_due = if room < max && !has_room {
        claiming.next_expiry()?
    } else if claiming.is_full() || claiming.lost > 0 || claiming.held_back == MAX_HELD_BACK {
        // What turned out to be gone leaves room for more.
        Some(Duration::ZERO)
    } else if has_room {
        claiming.next_due()?
    } else {
        None
    };
    Ok(Claimed {
        messages: claiming.messages,
        next_due,
    })
}

struct Claiming<'a> {
    transaction: &'a Transaction<'a>,
    stream: &'a StreamName,
    consumer: &'a str,
    group: GroupRow,
    /// The number of this claim.
    claim: i64,
    now: i64,
    visibility: i64,
    messages: Vec<ClaimedMessage>,
    /// The payloads of the deliveries together.
    bytes: usize,
    /// Messages that turned out to have been trimmed.
    lost: i64,
    /// Messages that were passed over.
    held_back: usize,
    /// The group's cursor after this claim.
    cursor: i64,
}

impl Claiming<'_> {
    fn explode_expired_leases(&self) -> Result<()> {
        let which = "group_id = ?1 AND deadline <= ?2 LIMIT ?3";
        let parameters = params![self.group.group_id, self.now, EXPIRED_LEASES];
        for lease in Lease::select(self.transaction, which, parameters)? {
            lease.explode(self.transaction, self.now)?;
        }
        Ok(())
    }

    /// Claims messages that come again: they were given back, or their claim has expired.
    fn take_due(&mut self, max: usize) -> Result<()> {
        let due: Vec<(i64, u32, Option<String>, Option<String>)> = self
            .transaction
            .prepare_cached(
                "SELECT number, attempts, last_error, ordering_key FROM stream_retry
                 WHERE group_id = ?1 AND due <= ?2 ORDER BY due, number LIMIT ?3",
            )?
            .query_map(
                params![
                    self.group.group_id,
                    self.now,
                    i64::try_from(max).unwrap_or(i64::MAX)
                ],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )?
            .collect::<Result<_, _>>()?;
        for (number, attempts, last_error, key) in due {
            if self.is_full() {
                break;
            }
            let Some(content) = content::find(self.transaction, self.group.stream_id, number)?
            else {
                self.transaction
                    .prepare_cached("DELETE FROM stream_retry WHERE group_id = ?1 AND number = ?2")?
                    .execute(params![self.group.group_id, number])?;
                lease::free_key(
                    self.transaction,
                    self.group.group_id,
                    key.as_deref(),
                    self.now,
                )?;
                self.lost += 1;
                continue;
            };
            let attempt = attempts.saturating_add(1);
            self.transaction
                .prepare_cached(
                    "UPDATE stream_retry
                     SET due = ?3, delay = ?4, attempts = ?5, claim = ?6, consumer = ?7, since = ?8
                     WHERE group_id = ?1 AND number = ?2",
                )?
                .execute(params![
                    self.group.group_id,
                    number,
                    self.now.saturating_add(self.visibility),
                    self.visibility,
                    attempt,
                    self.claim,
                    self.consumer,
                    self.now
                ])?;
            self.deliver(number, content, attempt, last_error);
        }
        Ok(())
    }

    /// Claims the next new messages, as one lease.
    fn take_new(&mut self, max: usize) -> Result<()> {
        let GroupRow {
            group_id,
            stream_id,
            head,
            tail,
            ..
        } = self.group;
        let lo = tail.max(self.cursor + 1);
        // What lies between was trimmed before the group had come to it.
        self.lost += lo - 1 - self.cursor;
        self.cursor = lo - 1;
        let room = i64::try_from(max - self.messages.len()).unwrap_or(i64::MAX);
        let hi = head.min(self.cursor.saturating_add(room));
        if hi < lo || self.is_full() {
            return Ok(());
        }
        let mut statement = self.transaction.prepare_cached(&format!(
            "SELECT {CONTENT_COLUMNS} FROM stream_message
             WHERE key BETWEEN ?1 AND ?2 ORDER BY key"
        ))?;
        let mut rows = statement.query(params![
            schema::key(stream_id, lo),
            schema::key(stream_id, hi)
        ])?;
        let mut holes = Vec::new();
        let has_any = self.messages.len();
        loop {
            if self.is_full() {
                break;
            }
            let Some(row) = rows.next()? else {
                holes.extend(self.cursor + 1..=hi);
                self.cursor = hi;
                break;
            };
            let number = row.get::<_, i64>(0)? & schema::MAX_NUMBER;
            // Messages that were removed by hand are skipped, and counted.
            holes.extend(self.cursor + 1..number);
            self.cursor = number;
            self.deliver(number, Content::read(row)?, 1, None);
        }
        self.lost += i64::try_from(holes.len()).unwrap_or(i64::MAX);
        if self.messages.len() == has_any {
            return Ok(());
        }
        let times = (self.now, self.now.saturating_add(self.visibility));
        let mut lease = Lease::new(group_id, self.claim, self.consumer, times, lo..=self.cursor);
        for hole in holes {
            lease.messages.settle(hole.cast_unsigned());
        }
        lease.insert(self.transaction)
    }

    /// Claims the next new messages whose ordering keys no earlier ones have, each with a row of its own. The
    /// others that are met wait for theirs.
    fn take_new_in_order(&mut self, max: usize) -> Result<()> {
        let GroupRow {
            group_id,
            stream_id,
            head,
            tail,
            ..
        } = self.group;
        let mut statement = self.transaction.prepare_cached(&format!(
            "SELECT {CONTENT_COLUMNS} FROM stream_message WHERE key BETWEEN ?1 AND ?2 ORDER BY key"
        ))?;
        let mut is_taken = self.transaction.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM stream_retry WHERE group_id = ?1 AND ordering_key = ?2)",
        )?;
        let mut insert = self.transaction.prepare_cached(
            "INSERT INTO stream_retry
                 (group_id, number, due, delay, attempts, claim, consumer, since, ordering_key)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        let lo = tail.max(self.cursor + 1);
        let mut rows =
            statement.query([schema::key(stream_id, lo), schema::key(stream_id, head)])?;
        while self.messages.len() < max && !self.is_full() && self.held_back < MAX_HELD_BACK {
            let row = rows.next()?;
            let number = match row {
                Some(row) => row.get::<_, i64>(0)? & schema::MAX_NUMBER,
                None => head + 1,
            };
            // What lies between was trimmed or deleted before the group had come to it.
            self.lost += number - 1 - self.cursor;
            self.cursor = number.min(head);
            let Some(row) = row else { break };
            let content = Content::read(row)?;
            let key = content.message.ordering_key();
            let key = key.map(serde_json::to_string).transpose();
            let key = key.map_err(Error::backend)?;
            let (now, visibility) = (self.now, self.visibility);
            if key.is_some() && is_taken.query_row(params![group_id, key], |row| row.get(0))? {
                let (due, none) = (HELD_BACK, None::<i64>);
                insert.execute(params![group_id, number, due, due, 0, none, none, now, key])?;
                self.held_back += 1;
                self.bytes += content.message.payload.len();
                continue;
            }
            let due = now.saturating_add(visibility);
            let (claim, consumer) = (self.claim, self.consumer);
            insert.execute(params![
                group_id, number, due, visibility, 1, claim, consumer, now, key
            ])?;
            self.deliver(number, content, 1, None);
        }
        Ok(())
    }

    /// How many messages may be claimed if so many may be at a time.
    fn room(&self, bound: NonZeroU32) -> Result<usize> {
        let GroupRow { group_id, .. } = self.group;
        let claimed: i64 = self
            .transaction
            .prepare_cached(
                "SELECT count(*) FROM stream_retry
                 WHERE group_id = ?1 AND due > ?2 AND claim IS NOT NULL",
            )?
            .query_row([group_id, self.now], |row| row.get(0))?;
        let mut claimed = usize::try_from(claimed).unwrap_or(usize::MAX);
        let which = "group_id = ?1 AND deadline > ?2";
        for lease in Lease::select(self.transaction, which, [group_id, self.now])? {
            claimed = claimed.saturating_add(lease.messages.open_count());
        }
        let bound = usize::try_from(bound.get()).unwrap_or(usize::MAX);
        Ok(bound.saturating_sub(claimed))
    }

    /// Writes what has changed of the group.
    fn save_group(&self) -> Result<()> {
        if self.messages.is_empty() && self.lost == 0 && self.held_back == 0 {
            return Ok(());
        }
        self.transaction
            .prepare_cached(
                "UPDATE stream_group
                 SET claims = ?2, cursor = ?3, lost_to_trim = lost_to_trim + ?4
                 WHERE group_id = ?1",
            )?
            .execute(params![
                self.group.group_id,
                self.claim,
                self.cursor,
                self.lost
            ])?;
        Ok(())
    }

    /// When the next message of the group is due, claimed or not.
    fn next_due(&self) -> Result<Option<Duration>> {
        self.first(&format!("due < {HELD_BACK}"), i64::MIN)
    }

    /// When the next claim expires of those that last.
    fn next_expiry(&self) -> Result<Option<Duration>> {
        self.first("claim IS NOT NULL", self.now)
    }

    /// The first time after another at which a lease expires or one of these retries is due.
    fn first(&self, retries: &str, after: i64) -> Result<Option<Duration>> {
        let next: Option<i64> = self
            .transaction
            .prepare_cached(&format!(
                "SELECT min(due) FROM (
                     SELECT (SELECT due FROM stream_retry WHERE group_id = ?1 AND due > ?2 AND {retries}
                             ORDER BY due LIMIT 1) AS due
                     UNION ALL
                     SELECT min(deadline) FROM stream_lease WHERE group_id = ?1 AND deadline > ?2)"
            ))?
            .query_row([self.group.group_id, after], |row| row.get(0))?;
        Ok(next.map(|due| time::duration(due.saturating_sub(self.now))))
    }

    /// Whether the payloads are as many bytes as one claim should read.
    fn is_full(&self) -> bool {
        self.bytes >= MAX_BYTES
    }

    fn deliver(&mut self, number: i64, content: Content, attempt: u32, last_error: Option<String>) {
        let id = MessageId::from_u64(number.cast_unsigned());
        self.bytes += content.message.payload.len();
        self.messages.push(ClaimedMessage {
            message: content.into_message(id, self.stream.clone(), attempt),
            receipt: Receipt {
                id,
                claim: self.claim.cast_unsigned(),
            },
            last_error,
        });
    }
}
