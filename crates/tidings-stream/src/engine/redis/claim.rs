//! Claiming messages for a group.

use std::time::Duration;

use super::content::{self, Content};
use super::scripts::{Script, Scripts};
use super::settle;
use crate::engine::lost_claims::{ClaimByNumber, UnderWay};
use crate::engine::{ClaimOptions, Claimed, ClaimedMessage, ConsumerKey, GroupKey, Receipt, time};
use crate::{Error, MessageId, Result};

/// What a script has claimed: birth of the stream, first and last new message, milliseconds until more
/// is due, and number, attempt and last error of each that comes again.
type Reply = (String, u64, u64, i64, Vec<(u64, u32, Option<String>)>);

/// Draws the number of a claim from so many that no two claims of the same message ever have the same
/// one, in whatever group of that name. It is exact as a number of a script.
pub(super) fn draw_number() -> i64 {
    fastrand::i64(1..1 << 52)
}

/// A message that was claimed and is still to be read.
struct Expected {
    number: u64,
    attempt: u32,
    last_error: Option<String>,
}

impl ClaimByNumber for Scripts {
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

/// Claims messages, then reads them.
async fn claim(
    scripts: &Scripts,
    consumer: &ConsumerKey,
    claim: i64,
    under_way: &mut UnderWay<'_>,
    options: ClaimOptions,
) -> Result<Claimed> {
    let group = &consumer.group;
    let mut call = scripts.call(Script::Claim);
    call.arg(group.stream.as_str())
        .arg(group.group.as_str())
        .arg(&*consumer.consumer)
        .arg(under_way.max())
        .arg(time::millis(options.visibility))
        .arg(claim)
        .arg(u8::from(options.in_key_order));
    match options.max_in_flight {
        Some(bound) => call.arg(bound.get()),
        None => call.arg(""),
    };
    let reply: Option<Reply> = scripts.run(Script::Claim, &call).await?;
    let (birth, lo, hi, wait, again) = reply.ok_or(Error::UnknownGroup)?;
    let claim = claim.cast_unsigned();
    let next_due = u64::try_from(wait).ok().map(Duration::from_millis);

    let mut expected: Vec<Expected> = Vec::with_capacity(again.len());
    for (number, attempt, last_error) in again {
        expected.push(Expected {
            number,
            attempt,
            last_error,
        });
    }
    expected.extend((lo..=hi).map(|number| Expected {
        number,
        attempt: 1,
        last_error: None,
    }));
    let Some(first) = expected.first() else {
        return Ok(Claimed {
            messages: Vec::new(),
            next_due,
        });
    };
    let first = Receipt {
        id: MessageId::from_u64(first.number),
        claim,
    };
    under_way.took(expected.len(), first);
    let contents = content::runs(scripts, &group.stream, &birth, &runs(&expected)).await?;
    let Some(contents) = contents else {
        // The stream is gone, and the group with it. The next claim finds whatever came after them.
        return Ok(Claimed {
            messages: Vec::new(),
            next_due: Some(Duration::ZERO),
        });
    };
    let (messages, gone) = match_up(group, claim, expected, contents);
    if gone.is_empty() {
        return Ok(Claimed { messages, next_due });
    }
    settle::lose(scripts, group, &gone).await?;
    // What is gone leaves room for more.
    Ok(Claimed {
        messages,
        next_due: Some(Duration::ZERO),
    })
}

/// Hands back what a claim has taken whose client did not get to know of it. Returns whether there was
/// anything.
async fn release(scripts: &Scripts, group: &GroupKey, claim: i64) -> Result<bool> {
    let mut call = scripts.call_for(Script::Release, group);
    call.arg(claim);
    scripts.run(Script::Release, &call).await
}

/// Runs of numbers that follow each other.
fn runs(expected: &[Expected]) -> Vec<(u64, u64)> {
    expected
        .chunk_by(|a, b| a.number + 1 == b.number)
        .filter_map(|run| Some((run.first()?.number, run.last()?.number)))
        .collect()
}

/// The messages that were found, and the receipts of those that have been trimmed since they were
/// claimed.
fn match_up(
    group: &GroupKey,
    claim: u64,
    expected: Vec<Expected>,
    contents: Vec<Content>,
) -> (Vec<ClaimedMessage>, Vec<Receipt>) {
    let mut messages = Vec::with_capacity(contents.len());
    let mut gone = Vec::new();
    let mut contents = contents.into_iter().peekable();
    for Expected {
        number,
        attempt,
        last_error,
    } in expected
    {
        let receipt = Receipt {
            id: MessageId::from_u64(number),
            claim,
        };
        match contents.next_if(|content| content.number == number) {
            Some(content) => messages.push(ClaimedMessage {
                message: content.into_message(group.stream.clone(), attempt),
                receipt,
                last_error,
            }),
            None => gone.push(receipt),
        }
    }
    (messages, gone)
}
