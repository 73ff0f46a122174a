//! Claiming messages for a group.

use std::num::NonZeroU32;
use std::time::Duration;

use rusqlite::{Transaction, params};

use super::content::{self, CONTENT_COLUMNS, MAX_BYTES};
use super::group::GroupRow;
use super::lease::Lease;
use super::schema::HELD_BACK;
use super::{clock, group, lease, schema};
use crate::engine::{ClaimOptions, Claimed, ClaimedMessage, ConsumerKey, MAX_HELD_BACK, time};
use crate::{Error, Message, ORDERING_KEY, Result, StreamName};

/// Most expired leases that one claim takes apart.
const EXPIRED_LEASES: u32 = 8;

/// Messages of one claim that room is made for at once.
const EXPECTED: usize = 1024;

/// How long a message that cannot be read waits, in milliseconds: the shortest and the longest time.
const FIRST_PAUSE: i64 = 1000;
const LAST_PAUSE: i64 = 60 * 60 * 1000;

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
    claiming.take_new(room, options.in_key_order)?;
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

/// A message that may be claimed again: its number and attempts, the error of the last one, its ordering key, and
/// for how long it has waited.
type Due = (i64, u32, Option<String>, Option<String>, i64);

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
    /// The headers and payloads that were read.
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
        let due: Vec<Due> = self
            .transaction
            .prepare_cached(
                "SELECT number, attempts, last_error, ordering_key, delay FROM stream_retry
                 WHERE group_id = ?1 AND due <= ?2 ORDER BY due, number LIMIT ?3",
            )?
            .query_map(
                params![
                    self.group.group_id,
                    self.now,
                    i64::try_from(max).unwrap_or(i64::MAX)
                ],
                |row| row.try_into(),
            )?
            .collect::<Result<_, _>>()?;
        for (number, attempts, last_error, key, delay) in due {
            if self.is_full() {
                break;
            }
            let stream_id = self.group.stream_id;
            let message = content::find(self.transaction, self.stream, stream_id, number)?;
            let Some(message) = message else {
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
            let message = match message {
                Ok(message) => message,
                Err(error) => {
                    self.hold_back(number, delay, &error)?;
                    continue;
                }
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
            self.deliver(message, attempt, last_error);
        }
        Ok(())
    }

    /// Claims the next new messages, as one lease; in the order of keys, each with a row of its own.
    fn take_new(&mut self, max: usize, in_key_order: bool) -> Result<()> {
        let GroupRow {
            group_id,
            stream_id,
            head,
            tail,
            ..
        } = self.group;
        let lo = tail.max(self.cursor + 1);
        let room = i64::try_from(max - self.messages.len()).unwrap_or(i64::MAX);
        // A lease has a bit for each number.
        let last = if in_key_order {
            head
        } else {
            (lo - 1).saturating_add(room)
        };
        let hi = head.min(last);
        let mut statement = self.transaction.prepare_cached(&format!(
            "SELECT {CONTENT_COLUMNS} FROM stream_message WHERE key BETWEEN ?1 AND ?2 ORDER BY key"
        ))?;
        let mut rows = statement.query([schema::key(stream_id, lo), schema::key(stream_id, hi)])?;
        let begun = self.messages.len();
        while self.messages.len() < max && !self.is_full() && self.held_back < MAX_HELD_BACK {
            let row = rows.next()?;
            let number = match row {
                Some(row) => content::number(row)?,
                None => hi + 1,
            };
            // What lies between was trimmed or deleted before the group had come to it.
            self.lost += number - 1 - self.cursor;
            self.cursor = number.min(hi);
            let Some(row) = row else { break };
            let message = match content::read(row, self.stream) {
                Ok(message) => message,
                Err(error) => {
                    self.hold_back(number, 0, &error)?;
                    self.held_back += 1;
                    continue;
                }
            };
            if in_key_order && !self.take_key(&message)? {
                self.held_back += 1;
                self.bytes += message.bytes();
            } else {
                self.deliver(message, 1, None);
            }
        }
        let taken = self.messages.get(begun..).unwrap_or_default();
        if in_key_order || taken.is_empty() {
            return Ok(());
        }
        let times = (self.now, self.now.saturating_add(self.visibility));
        let mut lease = Lease::new(group_id, self.claim, self.consumer, times, lo..=self.cursor);
        let mut taken = taken.iter().map(|it| it.receipt.id.as_u64()).peekable();
        for number in lo.cast_unsigned()..=self.cursor.cast_unsigned() {
            if taken.next_if_eq(&number).is_none() {
                lease.messages.settle(number);
            }
        }
        lease.insert(self.transaction)
    }

    /// Gives a new message a row of its own: claimed, or, if an earlier one has its ordering key, waiting for
    /// it. Returns which.
    fn take_key(&self, message: &Message) -> Result<bool> {
        let key = message.headers.get(ORDERING_KEY);
        let key = key.map(serde_json::to_string).transpose();
        let key = key.map_err(Error::backend)?;
        let group_id = self.group.group_id;
        let is_held_back = key.is_some()
            && self
                .transaction
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM stream_retry WHERE group_id = ?1 AND ordering_key = ?2)",
                )?
                .query_row(params![group_id, key], |row| row.get(0))?;
        let (due, delay, claim) = if is_held_back {
            (HELD_BACK, HELD_BACK, None)
        } else {
            let until = self.now.saturating_add(self.visibility);
            (until, self.visibility, Some((self.claim, self.consumer)))
        };
        self.transaction
            .prepare_cached(
                "INSERT INTO stream_retry
                     (group_id, number, due, delay, attempts, claim, consumer, since, ordering_key)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                group_id,
                message.id.as_u64().cast_signed(),
                due,
                delay,
                i64::from(!is_held_back),
                claim.map(|(number, _)| number),
                claim.map(|(_, consumer)| consumer),
                self.now,
                key
            ])?;
        Ok(!is_held_back)
    }

    /// Lets a message that cannot be read wait, for a second at first and then each time twice as long, up to an
    /// hour. Its attempts do not count.
    fn hold_back(&self, number: i64, delay: i64, error: &Error) -> Result<()> {
        let pause = delay.saturating_mul(2).clamp(FIRST_PAUSE, LAST_PAUSE);
        tracing::error!(
            stream = %self.stream, id = number, pause, error = error as &dyn std::error::Error,
            "a message cannot be read, holding it back"
        );
        self.transaction
            .prepare_cached(
                "INSERT INTO stream_retry (group_id, number, due, delay, attempts, since)
                 VALUES (?1, ?2, ?3, ?4, 0, ?5)
                 ON CONFLICT DO UPDATE SET due = excluded.due, delay = excluded.delay,
                     claim = NULL, consumer = NULL",
            )?
            .execute(params![
                self.group.group_id,
                number,
                self.now.saturating_add(pause),
                pause,
                self.now
            ])?;
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

    /// Whether the messages are as many bytes as one claim should read.
    fn is_full(&self) -> bool {
        self.bytes >= MAX_BYTES
    }

    fn deliver(&mut self, message: Message, attempt: u32, last_error: Option<String>) {
        self.bytes += message.bytes();
        let claim = self.claim.cast_unsigned();
        let claimed = ClaimedMessage::new(message, attempt, claim, last_error);
        self.messages.push(claimed);
    }
}
