//! Figures of streams and groups.

use std::time::Duration;

use tidings_redis::redis::{Value, cmd};

use super::scripts::{Script, Scripts};
use super::{failure, scripts};
use crate::{GroupFigures, GroupName, Result, StreamName, StreamStats};

/// What a script says of each group: name, cursor, first message that it has yet to finish, pending
/// messages, dead letters, losses, and the age of that message.
type Group = (String, u64, u64, u64, u64, u64, i64);

/// Reads the figures of a stream, all of the same moment.
pub(super) async fn read(scripts: &Scripts, stream: &StreamName) -> Result<StreamStats> {
    let mut call = scripts.call(Script::Stats);
    call.arg(stream.as_str());
    let reply = match scripts.run(Script::Stats, &call).await? {
        Value::Nil => return Ok(StreamStats::default()),
        reply => scripts::list(reply)?,
    };
    let mut reply = reply.into_iter();
    let mut next = || scripts::read(reply.next().unwrap_or_default());
    let (head, tail): (u64, u64) = (next()?, next()?);
    let groups: Vec<Group> = scripts::read(Value::Array(reply.collect()))?;
    if head + 1 < tail {
        return Err(failure::unexpected());
    }
    let groups = groups.into_iter().map(
        |(name, cursor, first_needed, pending, dead_lettered, lost_to_trim, age)| {
            Ok(GroupFigures {
                name: GroupName::new(&name)?,
                cursor,
                first_needed,
                lag: u64::try_from(age).ok().map(Duration::from_millis),
                pending,
                dead_lettered,
                lost_to_trim,
            })
        },
    );
    let groups = groups.collect::<Result<Vec<_>>>()?;
    Ok(StreamStats::new(tail, head, groups))
}

/// The streams whose names begin with a prefix, in order.
pub(super) async fn list(scripts: &Scripts, prefix: &str) -> Result<Vec<StreamName>> {
    // No UTF-8 has this byte, so that whatever begins with the prefix comes before.
    let end = [b"(", prefix.as_bytes(), b"\xff"].concat();
    let mut range = cmd("ZRANGE");
    range
        .arg(scripts.key("streams"))
        .arg(format!("[{prefix}"))
        .arg(end)
        .arg("BYLEX");
    let names: Vec<String> = scripts::read(scripts.command(&range).await?)?;
    names.iter().map(|name| name.parse()).collect()
}
