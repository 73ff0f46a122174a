//! Ending and extending claims.
//!
//! Receipts of one claim that follow each other are sent as a run: the whole of a claim that was
//! acknowledged is one entry, however many messages it has.

use std::time::Duration;

use tidings_redis::redis::Cmd;

use super::listen::Listener;
use super::scripts::{Script, Scripts};
use super::{append, scripts};
use crate::engine::{GroupKey, Outcome, Receipt, Settlement, headers, time};
use crate::{Error, dead_letter};

/// The largest numbers that any message and any claim can have: what is beyond them is no receipt of
/// ours, and would not be exact in a script.
pub(super) const MAX_NUMBER: u64 = 99_999_999_999_999;
const MAX_CLAIM: u64 = 1 << 53;

/// Ends claims.
pub(super) async fn settle(
    scripts: &Scripts,
    listener: &Listener,
    group: &GroupKey,
    settlements: &[Settlement],
) -> Result<Vec<bool>, Error> {
    let mut call = call(scripts, group);
    let places = acknowledgements_in_order(settlements);
    let mut sent = Vec::with_capacity(places.len());
    let mut rest = places.as_slice();
    while let Some(((place, settlement), others)) = rest.split_first() {
        let receipt = settlement.receipt;
        if let Outcome::Acknowledged = settlement.outcome {
            let run = run(rest.iter().map_while(|(_, settlement)| {
                matches!(settlement.outcome, Outcome::Acknowledged).then_some(settlement.receipt)
            }));
            let (these, others) = rest.split_at(run);
            let last = receipt.id.as_u64() + run as u64 - 1;
            call.arg("a").arg(receipt.claim);
            call.arg(receipt.id.as_u64()).arg(last);
            sent.extend(these.iter().map(|(place, _)| *place));
            rest = others;
            continue;
        }
        add(&mut call, settlement)?;
        sent.push(*place);
        rest = others;
    }
    let obeyed = run_and_read(scripts, &call, &sent, settlements.len()).await?;
    for (settlement, obeyed) in settlements.iter().zip(&obeyed) {
        match &settlement.outcome {
            Outcome::Dead { to, .. } if *obeyed => listener.wake_unless_listening(to),
            Outcome::Retry { .. } | Outcome::Released if *obeyed => {
                listener.wake_unless_listening(&group.stream);
            }
            _ => {}
        }
    }
    Ok(obeyed)
}

/// Ends claims of messages that turned out to have been trimmed.
pub(super) async fn lose(
    scripts: &Scripts,
    group: &GroupKey,
    receipts: &[Receipt],
) -> Result<(), Error> {
    let mut call = call(scripts, group);
    for receipt in receipts {
        call.arg("x").arg(receipt.claim).arg(receipt.id.as_u64());
    }
    let places: Vec<usize> = (0..receipts.len()).collect();
    run_and_read(scripts, &call, &places, receipts.len())
        .await
        .map(drop)
}

/// Makes claims last for `visibility` from now, at least.
pub(super) async fn extend(
    scripts: &Scripts,
    group: &GroupKey,
    receipts: &[Receipt],
    visibility: Duration,
) -> Result<Vec<bool>, Error> {
    let mut call = call(scripts, group);
    let mut places: Vec<(usize, Receipt)> = receipts.iter().copied().enumerate().collect();
    places.retain(|(_, receipt)| is_possible(*receipt));
    places.sort_by_key(|(_, receipt)| (receipt.claim, receipt.id));
    let mut rest = places.as_slice();
    while let Some((_, receipt)) = rest.first() {
        let run = run(rest.iter().map(|(_, receipt)| *receipt));
        let last = receipt.id.as_u64() + run as u64 - 1;
        call.arg("e").arg(receipt.claim);
        call.arg(receipt.id.as_u64()).arg(last);
        call.arg(time::millis(visibility));
        rest = rest.get(run..).unwrap_or_default();
    }
    let sent: Vec<usize> = places.into_iter().map(|(place, _)| place).collect();
    run_and_read(scripts, &call, &sent, receipts.len()).await
}

/// The settlements, by their places, that can be obeyed at all. Acknowledgements next to each other
/// are in the order of their claims and messages, which makes runs of them and changes nothing else;
/// everything else keeps its order, which that of dead letters is.
fn acknowledgements_in_order(settlements: &[Settlement]) -> Vec<(usize, &Settlement)> {
    let mut places: Vec<(usize, &Settlement)> = settlements.iter().enumerate().collect();
    places.retain(|(_, settlement)| is_possible(settlement.receipt));
    let is_acknowledged =
        |settlement: &Settlement| matches!(settlement.outcome, Outcome::Acknowledged);
    for section in places.chunk_by_mut(|a, b| is_acknowledged(a.1) && is_acknowledged(b.1)) {
        section.sort_by_key(|(_, settlement)| (settlement.receipt.claim, settlement.receipt.id));
    }
    places
}

fn is_possible(receipt: Receipt) -> bool {
    receipt.id.as_u64() <= MAX_NUMBER && receipt.claim < MAX_CLAIM
}

/// How many receipts, from the first on, are of one claim and follow each other.
fn run(receipts: impl Iterator<Item = Receipt>) -> usize {
    let mut last: Option<Receipt> = None;
    let follows = |receipt: &Receipt| {
        let is_next = last.is_none_or(|last| {
            last.claim == receipt.claim && last.id.as_u64() + 1 == receipt.id.as_u64()
        });
        last = Some(*receipt);
        is_next
    };
    receipts.take_while(follows).count()
}

fn call(scripts: &Scripts, group: &GroupKey) -> Cmd {
    let mut call = scripts.call(Script::Settle);
    call.arg(group.stream.as_str())
        .arg(group.group.as_str())
        .arg(append::birth())
        .arg(dead_letter::PREFIX);
    call
}

/// Adds the end of one claim.
fn add(call: &mut Cmd, settlement: &Settlement) -> Result<(), Error> {
    let Receipt { id, claim } = settlement.receipt;
    let kind = match settlement.outcome {
        Outcome::Acknowledged => "a",
        Outcome::Released => "l",
        Outcome::Retry { .. } => "r",
        Outcome::Dead { .. } => "d",
    };
    call.arg(kind).arg(claim).arg(id.as_u64());
    match &settlement.outcome {
        Outcome::Acknowledged => {
            call.arg(id.as_u64());
        }
        Outcome::Released => {}
        Outcome::Retry { delay, error } => {
            call.arg(time::millis(*delay))
                .arg(error.as_deref().unwrap_or_default())
                .arg(u8::from(error.is_some()));
        }
        Outcome::Dead { to, provenance } => {
            call.arg(to.as_str())
                .arg(headers::encode(provenance)?.unwrap_or_default());
        }
    }
    Ok(())
}

/// Runs the script, and puts what it says of each receipt in its place.
async fn run_and_read(
    scripts: &Scripts,
    call: &Cmd,
    places: &[usize],
    count: usize,
) -> Result<Vec<bool>, Error> {
    let reply = scripts.run(Script::Settle, call).await?;
    if reply == tidings_redis::redis::Value::Nil {
        return Err(Error::UnknownGroup);
    }
    let mut obeyed = vec![false; count];
    for (place, was_obeyed) in places.iter().zip(scripts::flags(reply, places.len())?) {
        if let Some(obeyed) = obeyed.get_mut(*place) {
            *obeyed = was_obeyed;
        }
    }
    Ok(obeyed)
}
