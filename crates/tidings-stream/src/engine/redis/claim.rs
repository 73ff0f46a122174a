//! Claiming messages for a group.

use std::time::Duration;

use super::scripts::{Script, Scripts};
use super::{content, settle};
use crate::engine::lost_claims::{ClaimByNumber, Expected, Read, Taken};
use crate::engine::{ClaimOptions, ConsumerKey, GroupKey, Receipt, time};
use crate::{Error, Result};

/// What a script has claimed: birth of the stream, first and last new message, milliseconds until more
/// is due, and number, attempt and last error of each that comes again.
type Reply = (String, u64, u64, i64, Vec<(u64, u32, Option<String>)>);

/// Draws the number of a claim from so many that no two claims of the same message ever have the same
/// one, in whatever group of that name. It is exact as a number of a script.
pub(super) fn draw_number() -> i64 {
    fastrand::i64(1..1 << 52)
}

impl ClaimByNumber for Scripts {
    /// The birth of the stream.
    type Place = String;

    async fn take(
        &self,
        consumer: &ConsumerKey,
        number: i64,
        max: usize,
        options: ClaimOptions,
    ) -> Result<Taken<String>> {
        let mut call = self.call_for(Script::Claim, &consumer.group);
        call.arg(&*consumer.consumer)
            .arg(max)
            .arg(time::millis(options.visibility))
            .arg(number)
            .arg(u8::from(options.in_key_order));
        match options.max_in_flight {
            Some(bound) => call.arg(bound.get()),
            None => call.arg(""),
        };
        let reply: Option<Reply> = self.run(Script::Claim, &call).await?;
        let (birth, lo, hi, wait, again) = reply.ok_or(Error::UnknownGroup)?;
        let claim = number.cast_unsigned();
        let again = again.into_iter();
        let expected = again
            .map(|(number, attempt, last_error)| Expected::new(number, claim, attempt, last_error));
        let new = (lo..=hi).map(|number| Expected::new(number, claim, 1, None));
        Ok(Taken {
            messages: expected.chain(new).collect(),
            next_due: u64::try_from(wait).ok().map(Duration::from_millis),
            place: birth,
        })
    }

    async fn read(
        &self,
        group: &GroupKey,
        messages: &[Expected],
        birth: String,
    ) -> Result<Option<Read>> {
        let numbers = messages.iter().map(|it| it.receipt.id.as_u64());
        let numbers: Vec<u64> = numbers.collect();
        let runs = numbers.chunk_by(|a, b| a + 1 == *b);
        let runs = runs.filter_map(|run| Some((*run.first()?, *run.last()?)));
        let runs: Vec<(u64, u64)> = runs.collect();
        let read = content::runs(self, &group.stream, &birth, &runs).await?;
        Ok(read.map(|read| read.into_iter().map(|message| (message, None)).collect()))
    }

    async fn lose(&self, group: &GroupKey, receipts: &[Receipt]) -> Result<()> {
        settle::lose(self, group, receipts).await
    }

    async fn release(&self, group: &GroupKey, number: i64) -> Result<bool> {
        let mut call = self.call_for(Script::Release, group);
        call.arg(number);
        self.run(Script::Release, &call).await
    }

    async fn extend(
        &self,
        group: &GroupKey,
        receipts: &[Receipt],
        visibility: Duration,
    ) -> Result<Vec<bool>> {
        settle::extend(self, group, receipts, visibility).await
    }
}
