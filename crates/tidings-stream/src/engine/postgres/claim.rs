//! Claiming messages for a group.

use std::collections::HashMap;
use std::time::Duration;

use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::tokio_postgres::types::Type;

use super::connections::Connections;
use super::content::{self, Content, MAX_BYTES};
use super::{failure, settle};
use crate::engine::{Claimed, ConsumerKey, Delivery, GroupKey, Receipt, time};
use crate::{Error, MessageId};

const CLAIM: &str = "
    SELECT o_stream_id, o_lo, o_hi, o_numbers, o_attempts, o_errors, o_next_due,
        o_times, o_headers, o_payloads
    FROM tidings_stream_claim($1, $2, $3, $4, $5, $6, $7, $8)";

const READY: &str = "SELECT tidings_stream_ready($1, $2)";

/// Claims what comes again and is due, then new messages.
///
/// New messages come with the answer when they are small. What is large, or comes again, is read by
/// another statement: a client that stops in the middle of receiving an answer makes the server keep
/// its transaction open, and the lock of the group.
pub(super) async fn claim(
    connections: &Connections,
    consumer: &ConsumerKey,
    max: usize,
    visibility: Duration,
) -> Result<Claimed, Error> {
    let ConsumerKey { group, consumer } = consumer;
    let number = draw_number();
    let max = i64::try_from(max).unwrap_or(i64::MAX).min(MAX_CLAIM);
    // A claim that expires when it is made could not be told from one that has expired.
    let visibility = time::millis(visibility).max(1);
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
            ],
        )
        .await?;
    let ticket = Ticket::read(&row, number)?.ok_or(Error::UnknownGroup)?;
    let new = content::inline(&row, 7, ticket.new.1)?;
    let next_due = ticket.next_due;
    let deliveries = ticket.redeem(connections, group, new).await?;
    Ok(Claimed {
        deliveries,
        next_due,
    })
}

/// Most bytes of content in the answer to a claim, together with which it still fits into the buffers of
/// a connection.
const MAX_INLINE_BYTES: i64 = 32 << 10;

/// Most messages of one claim: their bits are in one row.
const MAX_CLAIM: i64 = 1000;

/// The number of a claim: even, and one more for those of its messages that have a row of their own.
///
/// Drawn from so many that no two claims of the same message ever have the same one, in whatever
/// group of that name.
fn draw_number() -> i64 {
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
    last_error: Option<String>,
}

impl Ticket {
    /// Reads the answer; `None` when there is no such group.
    fn read(row: &Row, claim: i64) -> Result<Option<Self>, Error> {
        let stream_id: Option<i64> = row.try_get(0).map_err(failure::column)?;
        let Some(stream_id) = stream_id else {
            return Ok(None);
        };
        let lo: Option<i64> = row.try_get(1).map_err(failure::column)?;
        let hi: Option<i64> = row.try_get(2).map_err(failure::column)?;
        let numbers: Option<Vec<i64>> = row.try_get(3).map_err(failure::column)?;
        let attempts: Option<Vec<i32>> = row.try_get(4).map_err(failure::column)?;
        let errors: Option<Vec<Option<Vec<u8>>>> = row.try_get(5).map_err(failure::column)?;
        let next_due: Option<i64> = row.try_get(6).map_err(failure::column)?;
        let again = numbers
            .unwrap_or_default()
            .into_iter()
            .zip(attempts.unwrap_or_default())
            .zip(errors.unwrap_or_default())
            .map(|((number, attempt), error)| {
                Ok(Redelivery {
                    number,
                    attempt: attempt.cast_unsigned(),
                    last_error: error
                        .map(String::from_utf8)
                        .transpose()
                        .map_err(Error::backend)?,
                })
            });
        Ok(Some(Self {
            stream_id,
            claim,
            new: lo.zip(hi).unwrap_or((1, 0)),
            again: again.collect::<Result<_, Error>>()?,
            next_due: next_due.map(time::duration),
        }))
    }

    /// Reads the messages, but for new ones that came with it. What was trimmed at this very moment is
    /// settled as lost.
    async fn redeem(
        self,
        connections: &Connections,
        group: &GroupKey,
        new: Option<Vec<Content>>,
    ) -> Result<Vec<Delivery>, Error> {
        let (lo, hi) = self.new;
        let numbers: Vec<i64> = self.again.iter().map(|again| again.number).collect();
        let mut contents: HashMap<i64, Content> =
            content::some(connections, self.stream_id, &numbers)
                .await?
                .into_iter()
                .map(|content| (content.number, content))
                .collect();
        let mut deliveries = Vec::with_capacity(self.again.len());
        let mut lost = Vec::new();
        for again in self.again {
            let claim = self.claim + 1;
            match contents.remove(&again.number) {
                Some(content) => deliveries.push(deliver(
                    content,
                    group,
                    claim,
                    again.attempt,
                    again.last_error,
                )),
                None => lost.push(receipt(again.number, claim)),
            }
        }
        let new = match new {
            Some(new) => new,
            None => content::range(connections, self.stream_id, lo, hi).await?,
        };
        let first = new.first().map_or(hi + 1, |content| content.number);
        lost.extend((lo..first).map(|number| receipt(number, self.claim)));
        deliveries.extend(
            new.into_iter()
                .map(|content| deliver(content, group, self.claim, 1, None)),
        );
        if !lost.is_empty() {
            settle::lose(connections, group, &lost).await?;
        }
        Ok(deliveries)
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
) -> Delivery {
    Delivery {
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
