//! Claiming messages for a group.

use std::time::Duration;

use tidings_postgres::params;
use tidings_postgres::tokio_postgres::Row;

use super::content::{self, MAX_BYTES};
use super::held::Groups;
use super::rows::get;
use super::settle;
use crate::engine::lost_claims::{ClaimByNumber, Expected, Read, Taken};
use crate::engine::{ClaimOptions, ConsumerKey, GroupKey, Receipt, time};
use crate::{Error, Result};

const CLAIM: &str = "
    SELECT o_stream_id, o_lo, o_hi, o_numbers, o_attempts, o_next_due,
        o_new, o_times, o_headers, o_payloads
    FROM tidings_stream_claim($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

const RELEASE: &str = "SELECT tidings_stream_release_claim($1, $2, $3)";

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

/// The messages of a claim: those that come again, then new ones.
#[derive(Debug)]
pub(in crate::engine) struct Place {
    stream_id: i64,
    again: Vec<i64>,
    /// The first and the last new one.
    new: (i64, i64),
    /// The reply, which may have the new ones. It is not read before the claim is known: what cannot be read then
    /// is handed back.
    reply: Row,
}

impl ClaimByNumber for Groups<'_> {
    type Place = Place;

    /// New messages come with the reply if they are small. What is large, or redelivered, is read by another
    /// statement: a client that stops in the middle of receiving a reply makes the server keep its
    /// transaction open, and the lock of the group.
    async fn take(
        &self,
        consumer: &ConsumerKey,
        number: i64,
        max: usize,
        options: ClaimOptions,
    ) -> Result<Taken<Place>> {
        let ConsumerKey { group, consumer } = consumer;
        let max = i64::try_from(max).unwrap_or(i64::MAX).min(MAX_CLAIM);
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
        let row = self.row(group, CLAIM, parameters).await?;
        let row = row.ok_or(Error::UnknownGroup)?;
        let stream_id = get::<Option<i64>>(&row, 0)?.ok_or(Error::UnknownGroup)?;
        let (lo, hi): (Option<i64>, Option<i64>) = (get(&row, 1)?, get(&row, 2)?);
        let (lo, hi) = lo.zip(hi).unwrap_or((1, 0));
        let again: Vec<i64> = get::<Option<_>>(&row, 3)?.unwrap_or_default();
        let attempts: Vec<i32> = get::<Option<_>>(&row, 4)?.unwrap_or_default();
        let next_due: Option<i64> = get(&row, 5)?;
        let claim = number.cast_unsigned();
        let attempts = again.iter().zip(attempts);
        let expected = attempts.map(|(number, attempt)| {
            Expected::new(
                number.cast_unsigned(),
                claim + 1,
                attempt.cast_unsigned(),
                None,
            )
        });
        let new = lo.cast_unsigned()..=hi.cast_unsigned();
        let expected = expected.chain(new.map(|number| Expected::new(number, claim, 1, None)));
        Ok(Taken {
            messages: expected.collect(),
            next_due: next_due.map(time::duration),
            place: Place {
                stream_id,
                again,
                new: (lo, hi),
                reply: row,
            },
        })
    }

    async fn read(&self, group: &GroupKey, _: &[Expected], place: Place) -> Result<Option<Read>> {
        let Place {
            stream_id,
            again,
            new: (lo, hi),
            reply,
        } = place;
        let inline = content::inline(&reply, 6, &group.stream, lo)?;
        let new = if inline.is_some() { (1, 0) } else { (lo, hi) };
        let mut messages =
            content::claimed(self.connections, group, stream_id, &again, new).await?;
        let inline = inline.into_iter().flatten();
        messages.extend(inline.map(|message| (message, None)));
        Ok(Some(messages))
    }

    async fn lose(&self, group: &GroupKey, receipts: &[Receipt]) -> Result<()> {
        settle::lose(*self, group, receipts).await
    }

    async fn release(&self, group: &GroupKey, number: i64) -> Result<bool> {
        let parameters = params![group.stream.as_str(), group.group.as_str(), number];
        self.value(group, RELEASE, parameters).await
    }

    async fn extend(
        &self,
        group: &GroupKey,
        receipts: &[Receipt],
        visibility: Duration,
    ) -> Result<Vec<bool>> {
        settle::extend(*self, group, receipts, visibility).await
    }
}
