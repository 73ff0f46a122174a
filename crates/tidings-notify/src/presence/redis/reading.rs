//! What is asked.

use super::options::LARGEST;
use super::scripts::{Script, Scripts};
use crate::presence::{Mark, PresenceError, Transition, Transitions};
use crate::{RoutingInfo, UserId};

/// Most users in one script.
const CHUNK: usize = 500;

pub(super) async fn online_users(
    scripts: &Scripts,
    users: &[UserId],
) -> Result<Vec<UserId>, PresenceError> {
    let mut online = Vec::new();
    for chunk in users.chunks(CHUNK) {
        let mut call = scripts.call(Script::Online);
        for user in chunk {
            call.arg(user.as_str());
        }
        let flags: Vec<bool> = scripts.run(Script::Online, &call).await?;
        let flagged = chunk.iter().zip(flags).filter(|(_, is_online)| *is_online);
        online.extend(flagged.map(|(user, _)| user.clone()));
    }
    Ok(online)
}

pub(super) async fn locate(
    scripts: &Scripts,
    user: &UserId,
) -> Result<Vec<RoutingInfo>, PresenceError> {
    let mut call = scripts.call(Script::Locate);
    call.arg(user.as_str());
    let found: Vec<String> = scripts.run(Script::Locate, &call).await?;
    let mut places: Vec<RoutingInfo> = Vec::new();
    for routing in found {
        let place = serde_json::from_str(&routing).map_err(PresenceError::backend)?;
        if !places.contains(&place) {
            places.push(place);
        }
    }
    if places.is_empty() {
        return Err(PresenceError::NotFound);
    }
    Ok(places)
}

/// Epoch, last number, whether leases have ended, first number of the page, and for each transition whether
/// it is to online, and its user.
type Reply = (u64, u64, bool, u64, Vec<(bool, String)>);

pub(super) async fn transitions(
    scripts: &Scripts,
    kept: usize,
    after: Option<Mark>,
    limit: usize,
) -> Result<Transitions, PresenceError> {
    let mut call = scripts.call(Script::Transitions);
    call.arg(kept).arg(limit.clamp(1, LARGEST));
    if let Some(mark) = after {
        call.arg(mark.epoch).arg(mark.number);
    }
    let reply: Reply = scripts.run(Script::Transitions, &call).await?;
    let (epoch, last, has_ended, first, found) = reply;
    let transition = |(is_online, user): (bool, String)| {
        let user = UserId::new(user).map_err(PresenceError::backend)?;
        Ok(Transition { user, is_online })
    };
    let page = found
        .into_iter()
        .map(transition)
        .collect::<Result<Vec<_>, PresenceError>>()?;
    let first = (!page.is_empty()).then_some(first);
    let mut page = Transitions::page(after, epoch, last, first, page);
    page.has_more |= has_ended;
    Ok(page)
}
