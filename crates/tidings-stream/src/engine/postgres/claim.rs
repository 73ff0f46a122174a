//! Claiming messages for a group.

use std::collections::HashMap;
use std::time::Duration;

use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::{Connections, params};

use super::content::{self, Content, MAX_BYTES};
use super::rows::{get, row, value};
use super::settle;
use crate::engine::lost_claims::{ClaimByNumber, UnderWay};
use crate::engine::{ClaimOptions, Claimed, ClaimedMessage, ConsumerKey, GroupKey, Receipt, time};
use crate::{Error, MessageId, Result};

const CLAIM: &str = "
    SELECT o_stream_id, o_lo, o_hi, o_numbers, o_attempts, o_next_due,
        o_new, o_times, o_headers, o_payloads
    FROM tidings_stream_claim($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

const RELEASE: &str = "SELECT tidings_stream_release_claim($1, $2, $3)";

impl ClaimByNumber for Connections {
    async fn claim(
        &self,
        consumer: &ConsumerKey,
        number: i64,
        under_way: &mut UnderWay<'_>,
        options: ClaimOptions,
    ) -> Result<Claimed> {
        claim(self, consumer, number, under_way, options).await
    }

    async fn release(&self, group: &GroupKey, number: i64) -> Result<bool> {
        release(self, group, number).await
    }

    async fn extend(&self, group: &GroupKey, receipt: Receipt, visibility: Duration) -> bool {
        let extended = settle::extend(self, group, &[receipt], visibility).await;
        extended.is_ok_and(|obeyed| obeyed == [true])
    }
}

/// Claims what comes again and is due, then new messages.
///
/// New messages come with the reply if they are small. What is large, or redelivered, is read by another
/// statement: a client that stops in the middle of receiving a reply makes the server keep its
/// transaction open, and the lock of the group.
async fn claim(
    connections: &Connections,
    consumer: &ConsumerKey,
    number: i64,
    under_way: &mut UnderWay<'_>,
    options: ClaimOptions,
) -> Result<Claimed> {
    let ConsumerKey { group, consumer } = consumer;
    let max = i64::try_from(under_way.max())
        .unwrap_or(i64::MAX)
        .min(MAX_CLAIM);
    // A claim that expires when it is made would be taken for an expired one.
    let visibility = time::millis(options.visibility).max(1);
    let max_in_flight = options.max_in_flight.map(|bound| i64::from(bound.get()));
    let parameters = params![
        group.stream.as_str(),
        group.group.as_str(),
        number,
        &**consumer,
        max,
        visibility,
        MAX_BYTES,
        MAX_INLINE_BYTES,
        options.in_key_order,
        max_in_flight
    ];
    let row = row(connections, CLAIM, parameters).await?;
    let row = row.ok_or(Error::UnknownGroup)?;
    let ticket = Ticket::read(&row, number)?.ok_or(Error::UnknownGroup)?;
    if let Some((messages, first)) = ticket.size() {
        under_way.took(messages, first);
    }
    let new = content::inline(&row, 6, ticket.new.0)?;
    ticket.redeem(connections, group, new).await
}

/// Hands back what a claim has taken whose client did not get to know of it. Returns whether there was
/// anything.
async fn release(connections: &Connections, group: &GroupKey, number: i64) -> Result<bool> {
    let parameters = params![group.stream.as_str(), group.group.as_str(), number];
    value(connections, RELEASE, parameters).await
}

/// Most bytes of content in the reply to a claim, with which it still fits into the buffers of a
/// connection.
const MAX_INLINE_BYTES: i64 = 32 << 10;

/// Most messages of one claim: their bits are in one row.
const MAX_CLAIM: i64 = 1000;

/// The number of a claim: even, and one more for those of its messages that have a row of their own.
///
/// Drawn from so many that no two claims of the same message ever have the same one, in whatever
/// group of that name.
pub(super) fn draw_number() -> i64 {
    fastrand::i64(1..1 << 61) * 2
}

/// What was claimed, without its content.
#[derive(Debug)]
struct Ticket {
    stream_id: i64,
    claim: i64,
    /// The first and last number of the new messages.
    new: (i64, i64),
    /// The number and the attempt of each message that is delivered again.
    again: Vec<(i64, u32)>,
    next_due: Option<Duration>,
}

impl Ticket {
    /// Reads the reply; `None` if there is no such group.
    fn read(row: &Row, claim: i64) -> Result<Option<Self>> {
        let Some(stream_id) = get(row, 0)? else {
            return Ok(None);
        };
        let (lo, hi): (Option<i64>, Option<i64>) = (get(row, 1)?, get(row, 2)?);
        let numbers: Option<Vec<i64>> = get(row, 3)?;
        let attempts: Option<Vec<i32>> = get(row, 4)?;
        let next_due: Option<i64> = get(row, 5)?;
        let attempts = attempts.unwrap_or_default().into_iter();
        let attempts = attempts.map(i32::cast_unsigned);
        let again = numbers.unwrap_or_default().into_iter().zip(attempts);
        Ok(Some(Self {
            stream_id,
            claim,
            new: lo.zip(hi).unwrap_or((1, 0)),
            again: again.collect(),
            next_due: next_due.map(time::duration),
        }))
    }

    /// How many messages it is for, and the first one; `None` if it is for none.
    fn size(&self) -> Option<(usize, Receipt)> {
        let (lo, hi) = self.new;
        let new = usize::try_from((hi - lo + 1).max(0)).unwrap_or(usize::MAX);
        let again = self.again.first();
        let again = again.map(|(number, _)| receipt(*number, self.claim + 1));
        let first = again.or_else(|| (new > 0).then(|| receipt(lo, self.claim)))?;
        Some((self.again.len() + new, first))
    }

    /// Reads the messages, except new ones that came with the reply. What was trimmed at this very
    /// moment, or was removed by hand, is settled as lost.
    async fn redeem(
        self,
        connections: &Connections,
        group: &GroupKey,
        new: Option<Vec<Content>>,
    ) -> Result<Claimed> {
        let (lo, hi) = self.new;
        let numbers: Vec<i64> = self.again.iter().map(|(number, _)| *number).collect();
        let contents = content::redelivered(connections, group, self.stream_id, &numbers).await?;
        let mut contents: HashMap<i64, _> = contents
            .into_iter()
            .map(|(content, error)| (content.number, (content, error)))
            .collect();
        let mut messages = Vec::with_capacity(self.again.len());
        let mut lost = Vec::new();
        for (number, attempt) in self.again {
            let claim = self.claim + 1;
            match contents.remove(&number) {
                Some((content, last_error)) => {
                    messages.push(deliver(content, group, claim, attempt, last_error));
                }
                None => lost.push(receipt(number, claim)),
            }
        }
        let new = match new {
            Some(new) => new,
            None => content::range(connections, self.stream_id, lo, hi).await?,
        };
        let mut next = lo;
        for content in new {
            lost.extend((next..content.number).map(|number| receipt(number, self.claim)));
            next = content.number + 1;
            messages.push(deliver(content, group, self.claim, 1, None));
        }
        lost.extend((next..=hi).map(|number| receipt(number, self.claim)));
        if lost.is_empty() {
            return Ok(Claimed {
                messages,
                next_due: self.next_due,
            });
        }
        settle::lose(connections, group, &lost).await?;
        // What is gone leaves room for more.
        Ok(Claimed {
            messages,
            next_due: Some(Duration::ZERO),
        })
    }
}

fn receipt(number: i64, claim: i64) -> Receipt {
    Receipt {
        id: MessageId::from_u64(number.cast_unsigned()),
        claim: claim.cast_unsigned(),
    }
}

fn deliver(
    content: Content,
    group: &GroupKey,
    claim: i64,
    attempt: u32,
    last_error: Option<String>,
) -> ClaimedMessage {
    ClaimedMessage {
        receipt: receipt(content.number, claim),
        message: content.into_message(group.stream.clone(), attempt),
        last_error,
    }
}
