//! Consumer groups.

use tidings_redis::redis::{Cmd, Value};

use super::scripts::{Script, Scripts};
use super::{append, scripts};
use crate::engine::{GroupKey, time};
use crate::{Error, MessageId, StartFrom};

/// Creates a group, and its stream, unless they exist.
pub(super) async fn open(
    scripts: &Scripts,
    group: &GroupKey,
    start: StartFrom,
) -> Result<(), Error> {
    let mut call = call(scripts, Script::OpenGroup, group);
    call.arg(append::birth());
    add_start(&mut call, start);
    match scripts.run(Script::OpenGroup, &call).await? {
        Value::Nil => Ok(()),
        head => Err(ahead(start, scripts::read(head)?)),
    }
}

/// Moves a group, and drops what it has pending.
pub(super) async fn seek(scripts: &Scripts, group: &GroupKey, to: StartFrom) -> Result<(), Error> {
    let mut call = call(scripts, Script::Seek, group);
    add_start(&mut call, to);
    match scripts.run(Script::Seek, &call).await? {
        Value::Nil => Err(Error::UnknownGroup),
        Value::Int(head) => Err(ahead(to, head.cast_unsigned())),
        _ => Ok(()),
    }
}

/// Deletes a group and what it has pending.
pub(super) async fn delete(scripts: &Scripts, group: &GroupKey) -> Result<bool, Error> {
    let call = call(scripts, Script::DeleteGroup, group);
    scripts.run(Script::DeleteGroup, &call).await
}

/// A call of a script that is about one group.
pub(super) fn call(scripts: &Scripts, script: Script, group: &GroupKey) -> Cmd {
    let mut call = scripts.call(script);
    call.arg(group.stream.as_str()).arg(group.group.as_str());
    call
}

fn add_start(call: &mut Cmd, start: StartFrom) {
    match start {
        StartFrom::Latest => call.arg("latest").arg(""),
        StartFrom::Earliest => call.arg("earliest").arg(""),
        StartFrom::After(id) => call.arg("after").arg(id.as_u64()),
        StartFrom::At(at) => call.arg("at").arg(time::first_milli(at)),
    };
}

fn ahead(start: StartFrom, head: u64) -> Error {
    let newest = MessageId::from_u64(head);
    match start {
        StartFrom::After(start) => Error::StartAhead { start, newest },
        _ => super::failure::unexpected(),
    }
}
