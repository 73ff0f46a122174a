//! The consumers of groups.

use std::time::Duration;

use super::group;
use super::scripts::{Script, Scripts};
use crate::engine::{ConsumerKey, GroupKey, time};
use crate::{Error, Member};

/// Most consumers of one script.
const CHUNK: usize = 500;

/// Notes that consumers are alive for some time, or, when it is zero, that they have gone.
pub(super) async fn check_in(
    scripts: &Scripts,
    consumers: &[ConsumerKey],
    ttl: Duration,
) -> Result<(), Error> {
    for chunk in consumers.chunks(CHUNK) {
        let mut call = scripts.call(Script::CheckIn);
        call.arg(time::millis(ttl));
        for ConsumerKey { group, consumer } in chunk {
            call.arg(group.stream.as_str())
                .arg(group.group.as_str())
                .arg(&**consumer);
        }
        scripts.run::<()>(Script::CheckIn, &call).await?;
    }
    Ok(())
}

/// The consumers of a group that are alive or hold a claim.
pub(super) async fn list(scripts: &Scripts, group: &GroupKey) -> Result<Vec<Member>, Error> {
    let call = group::call(scripts, Script::Members, group);
    let reply = scripts.run(Script::Members, &call).await?;
    let members: Option<Vec<(String, bool, u64)>> = reply;
    let members = members.ok_or(Error::UnknownGroup)?;
    let mut members: Vec<Member> = members
        .into_iter()
        .map(|(consumer, is_alive, pending)| Member {
            consumer,
            is_alive,
            pending,
        })
        .collect();
    members.sort_by(|a, b| a.consumer.cmp(&b.consumer));
    Ok(members)
}
