//! Claiming messages for a group.

use std::collections::HashMap;
use std::time::Duration;

use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::tokio_postgres::types::Type;

use super::content::{self, Content, MAX_BYTES};
use super::{failure, settle};
use crate::engine::lost_claims::{ClaimByNumber, UnderWay};
use crate::engine::{ClaimOptions, Claimed, ClaimedMessage, ConsumerKey, GroupKey, Receipt, time};
use crate::{Error, MessageId};

const CLAIM: &str = "
    SELECT o_stream_id, o_lo, o_hi, o_numbers, o_attempts, o_next_due,
        o_new, o_times, o_headers, o_payloads
    FROM tidings_stream_claim($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

const RELEASE: &str = "SELECT tidings_stream_release_claim($1, $2, $3)";

const READY: &str = "SELECT tidings_stream_ready($1, $2)";

impl ClaimByNumber for Connections {
    async fn claim(
        &self,
        consumer: &ConsumerKey,
        number: i64,
        under_way: &mut UnderWay<'_>,
        options: ClaimOptions,
    ) -> Result<Claimed, Error> {
        claim(self, consumer, number, under_way, options).await
    }

    async fn release(&self, group: &GroupKey, number: i64) -> Result<bool, Error> {
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
) -> Result<Claimed, Error> {
    let ConsumerKey { group, consumer } = consumer;
    let max = i64::try_from(under_way.max())
        .unwrap_or(i64::MAX)
        .min(MAX_CLAIM);
    // A claim that expires when it is made would be taken for an expired one.
    let visibility = time::millis(options.visibility).max(1);
    let max_in_flight = options.max_in_flight.map(|bound| i64::from(bound.get()));
    let row = connections
        .row(
            CLAIM,
            &[
                (&group.stream.as_str(), Type::TEXT),
                (&group.group.as_str(), Type::TEXT),
                (&number, Type::INT8),
                (&&**consumer, Type::TEXT),
                (&max, Type::INT8),
                (&visibility, Type::INT8),
                (&MAX_BYTES, Type::INT8),
                (&MAX_INLINE_BYTES, Type::INT8),
                (&options.in_key_order, Type::BOOL),
                (&max_in_flight, Type::INT8),
            ],
        )
        .await?;
    let ticket = Ticket::read(&row, number)?.ok_or(Error::UnknownGroup)?;
    if let Some((messages, first)) = ticket.size() {
        under_way.took(messages, first);
    }
    let new = content::inline(&row, 6, ticket.new.0)?;
    ticket.redeem(connections, group, new).await
}

/// Hands back what a claim has taken whose client did not get to know of it. Returns whether there was
/// anything.
async fn release(connections: &Connections, group: &GroupKey, number: i64) -> Result<bool, Error> {
    let parameters = [
        (&group.stream.as_str() as _, Type::TEXT),
        (&group.group.as_str() as _, Type::TEXT),
        (&number as _, Type::INT8),
    ];
    let row = connections.row(RELEASE, &parameters).await?;
    row.try_get(0).map_err(failure::column)
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
    again: Vec<Redelivery>,
    next_due: Option<Duration>,
}

/// A message that is delivered again.
#[derive(Debug)]
struct Redelivery {
    number: i64,
    attempt: u32,
}

impl Ticket {
    /// Reads the reply; `None` if there is no such group.
    fn read(row: &Row, claim: i64) -> Result<Option<Self>, Error> {
        let stream_id: Option<i64> = row.try_get(0).map_err(failure::column)?;
        let Some(stream_id) = stream_id else {
            return Ok(None);
        };
        let lo: Option<i64> = row.try_get(1).map_err(failure::column)?;
        let hi: Option<i64> = row.try_get(2).map_err(failure::column)?;
        let numbers: Option<Vec<i64>> = row.try_get(3).map_err(failure::column)?;
        let attempts: Option<Vec<i32>> = row.try_get(4).map_err(failure::column)?;
        let next_due: Option<i64> = row.try_get(5).map_err(failure::column)?;
        let again = numbers
            .unwrap_or_default()
            .into_iter()
            .zip(attempts.unwrap_or_default())
            .map(|(number, attempt)| Redelivery {
                number,
                attempt: attempt.cast_unsigned(),
            });
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
        let again = again.map(|again| receipt(again.number, self.claim + 1));
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
    ) -> Result<Claimed, Error> {
        let (lo, hi) = self.new;
        let numbers: Vec<i64> = self.again.iter().map(|again| again.number).collect();
        let contents = content::redelivered(connections, group, self.stream_id, &numbers).await?;
        let mut contents: HashMap<i64, _> = contents
            .into_iter()
            .map(|(content, error)| (content.number, (content, error)))
            .collect();
        let mut messages = Vec::with_capacity(self.again.len());
        let mut lost = Vec::new();
        for again in self.again {
            let claim = self.claim + 1;
            match contents.remove(&again.number) {
                Some((content, last_error)) => {
                    messages.push(deliver(content, group, claim, again.attempt, last_error));
                }
                None => lost.push(receipt(again.number, claim)),
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

/// Whether a claim of each group would find something.
pub(super) async fn ready(
    connections: &Connections,
    groups: &[GroupKey],
) -> Result<Vec<bool>, Error> {
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let streams: Vec<&str> = groups.iter().map(|key| key.stream.as_str()).collect();
    let names: Vec<&str> = groups.iter().map(|key| key.group.as_str()).collect();
    let parameters = [
        (&streams as _, Type::TEXT_ARRAY),
        (&names as _, Type::TEXT_ARRAY),
    ];
    let row = connections.row(READY, &parameters).await?;
    row.try_get(0).map_err(failure::column)
}
