//! Figures of streams and groups.

use tidings_redis::redis::{Value, cmd};

use super::scripts::{Script, Scripts};
use super::{failure, scripts};
use crate::{Error, GroupName, GroupStats, MessageId, StreamName, StreamStats};

/// What a script says of each group: name, cursor, first message that it has yet to finish, pending
/// messages, dead letters and losses.
type Group = (String, u64, u64, u64, u64, u64);

/// Reads the figures of a stream, all of the same moment.
pub(super) async fn read(scripts: &Scripts, stream: &StreamName) -> Result<StreamStats, Error> {
    let mut call = scripts.call(Script::Stats);
    call.arg(stream.as_str());
    let answer = match scripts.run(Script::Stats, &call).await? {
        Value::Nil => return Ok(StreamStats::default()),
        answer => scripts::list(answer)?,
    };
    let mut answer = answer.into_iter();
    let mut next = || scripts::read(answer.next().unwrap_or_default());
    let (head, tail): (u64, u64) = (next()?, next()?);
    let groups: Vec<Group> = scripts::read(Value::Array(answer.collect()))?;
    let holds_any = tail <= head;
    let id = MessageId::from_u64;
    let groups = groups
        .into_iter()
        .map(|(name, cursor, first_needed, pending, dead, lost)| {
            let first_needed = first_needed.max(tail);
            Ok(GroupStats {
                position: id(cursor),
                oldest_unfinished: (first_needed <= head).then(|| id(first_needed)),
                lag: head - cursor.max(tail - 1),
                pending,
                dead_lettered: dead,
                lost_to_trim: lost,
                ..GroupStats::new(GroupName::new(&name)?)
            })
        })
        .collect::<Result<_, Error>>()?;
    Ok(StreamStats {
        oldest: holds_any.then(|| id(tail)),
        newest: holds_any.then(|| id(head)),
        messages: (head + 1)
            .checked_sub(tail)
            .ok_or_else(failure::unexpected)?,
        groups,
    })
}

/// The streams whose names begin with a prefix, in order.
pub(super) async fn list(scripts: &Scripts, prefix: &str) -> Result<Vec<StreamName>, Error> {
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
