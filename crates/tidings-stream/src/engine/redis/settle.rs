//! Ending and extending claims.
//!
//! Receipts of one claim that follow each other are sent as a run: the whole of a claim that was
//! acknowledged is one entry, however many messages it has.

use std::time::Duration;

use tidings_redis::redis::Cmd;

use super::scripts::{Script, Scripts};
use super::{append, scripts};
use crate::engine::{GroupKey, Outcome, Receipt, Settled, Settlement, stored, time};
use crate::{Error, Result, dead_letter};

/// The largest numbers that any message and any claim can have: what is beyond them is no receipt of
/// ours, and would not be exact in a script.
pub(super) const MAX_NUMBER: u64 = 99_999_999_999_999;
const MAX_CLAIM: u64 = 1 << 53;

/// Ends claims.
pub(super) async fn settle(
    scripts: &Scripts,
    group: &GroupKey,
    settlements: &[Settlement],
) -> Result<Settled> {
    let mut call = call(scripts, group);
    let places = acknowledgements_in_order(settlements);
    let runs = places.chunk_by(|(_, a), (_, b)| {
        is_acknowledged(a) && is_acknowledged(b) && follows(a.receipt, b.receipt)
    });
    for run in runs {
        match run {
            [(_, first), ..] if is_acknowledged(first) => {
                add_run(&mut call, "a", first.receipt, run.len());
            }
            others => others
                .iter()
                .try_for_each(|(_, settlement)| add(&mut call, settlement))?,
        }
    }
    let sent: Vec<usize> = places.iter().map(|(place, _)| *place).collect();
    let obeyed = run_and_read(scripts, &call, &sent, settlements.len()).await?;
    Ok(Settled {
        obeyed,
        // The script wakes those that it lets claim more, this process as well.
        has_freed: false,
    })
}

/// Ends claims of messages that turned out to have been trimmed.
pub(super) async fn lose(scripts: &Scripts, group: &GroupKey, receipts: &[Receipt]) -> Result<()> {
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
) -> Result<Vec<bool>> {
    let mut call = call(scripts, group);
    let mut places: Vec<(usize, Receipt)> = receipts.iter().copied().enumerate().collect();
    places.retain(|(_, receipt)| is_possible(*receipt));
    places.sort_by_key(|(_, receipt)| (receipt.claim, receipt.id));
    for run in places.chunk_by(|(_, a), (_, b)| follows(*a, *b)) {
        if let Some((_, first)) = run.first() {
            add_run(&mut call, "e", *first, run.len());
            call.arg(time::millis(visibility));
        }
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
    for section in places.chunk_by_mut(|a, b| is_acknowledged(a.1) && is_acknowledged(b.1)) {
        section.sort_by_key(|(_, settlement)| (settlement.receipt.claim, settlement.receipt.id));
    }
    places
}

fn is_possible(receipt: Receipt) -> bool {
    receipt.id.as_u64() <= MAX_NUMBER && receipt.claim < MAX_CLAIM
}

fn is_acknowledged(settlement: &Settlement) -> bool {
    matches!(settlement.outcome, Outcome::Acknowledged)
}

/// Whether receipts that follow each other are of one claim.
fn follows(a: Receipt, b: Receipt) -> bool {
    a.claim == b.claim && a.id.as_u64() + 1 == b.id.as_u64()
}

/// Adds what becomes of some messages of one claim that follow each other.
fn add_run(call: &mut Cmd, kind: &str, first: Receipt, count: usize) {
    let number = first.id.as_u64();
    call.arg(kind).arg(first.claim);
    call.arg(number).arg(number + count as u64 - 1);
}

fn call(scripts: &Scripts, group: &GroupKey) -> Cmd {
    let mut call = scripts.call_for(Script::Settle, group);
    call.arg(append::birth()).arg(dead_letter::PREFIX);
    call
}

/// Adds the end of one claim that is no acknowledgement.
fn add(call: &mut Cmd, settlement: &Settlement) -> Result<()> {
    let Receipt { id, claim } = settlement.receipt;
    match &settlement.outcome {
        // These are sent as runs.
        Outcome::Acknowledged => {}
        Outcome::Released => {
            call.arg("l").arg(claim).arg(id.as_u64());
        }
        Outcome::Retry { delay, error } => {
            call.arg("r").arg(claim).arg(id.as_u64());
            call.arg(time::millis(*delay))
                .arg(error.as_deref().unwrap_or_default())
                .arg(u8::from(error.is_some()));
        }
        Outcome::Dead { to, provenance } => {
            call.arg("d").arg(claim).arg(id.as_u64());
            call.arg(to.as_str())
                .arg(stored::encode(provenance)?.unwrap_or_default());
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
) -> Result<Vec<bool>> {
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
