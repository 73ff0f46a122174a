//! What instances write.

use super::scripts::{Script, Scripts};
use crate::presence::{Heartbeat, Lease, LeaseId, PresenceError, Standing, Update};

pub(super) async fn update(
    scripts: &Scripts,
    kept: usize,
    lease: &Lease,
    update: &Update,
) -> Result<Standing, PresenceError> {
    let routing = serde_json::to_string(&lease.routing).map_err(PresenceError::backend)?;
    let mut call = scripts.call(Script::Update);
    call.arg(lease.id.to_string())
        .arg(millis(lease))
        .arg(kept)
        .arg(routing)
        .arg(update.confirmed)
        .arg(update.version)
        .arg(update.came.len());
    for user in update.came.iter().chain(&update.left) {
        call.arg(user.as_str());
    }
    Ok(standing(scripts.run(Script::Update, &call).await?))
}

pub(super) async fn beat(
    scripts: &Scripts,
    kept: usize,
    lease: &Lease,
    expected: &Heartbeat,
) -> Result<Standing, PresenceError> {
    let mut call = scripts.call(Script::Beat);
    call.arg(lease.id.to_string())
        .arg(millis(lease))
        .arg(kept)
        .arg(expected.version)
        .arg(expected.users);
    Ok(standing(scripts.run(Script::Beat, &call).await?))
}

pub(super) async fn end(scripts: &Scripts, lease: LeaseId) -> Result<(), PresenceError> {
    let mut call = scripts.call(Script::End);
    call.arg(lease.to_string());
    Ok(scripts.run(Script::End, &call).await?)
}

fn standing(is_kept: bool) -> Standing {
    if is_kept {
        Standing::Kept
    } else {
        Standing::Lost
    }
}

fn millis(lease: &Lease) -> u64 {
    u64::try_from(lease.lasts().as_millis()).unwrap_or(u64::MAX)
}
