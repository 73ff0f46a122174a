//! What groups have begun and not finished.

use std::time::Duration;

use super::CHUNK;
use super::scripts::{Script, Scripts};
use crate::engine::GroupKey;
use crate::{Error, MessageId, PendingMessage, Result};

/// What a script says of each message: number, attempts, consumer, age, time until it is due, and
/// last error.
type Reply = Vec<(u64, u32, Option<String>, u64, u64, Option<String>)>;

/// Reads a page of the pending messages of a group, in the order of their ids.
pub(super) async fn page(
    scripts: &Scripts,
    group: &GroupKey,
    after: Option<MessageId>,
    max: usize,
) -> Result<Vec<PendingMessage>> {
    let mut pending: Vec<PendingMessage> = Vec::new();
    let mut after = after;
    loop {
        let count = CHUNK.min(max - pending.len());
        let mut call = scripts.call_for(Script::Pending, group);
        call.arg(after.map_or(0, MessageId::as_u64)).arg(count);
        let reply: Option<Reply> = scripts.run(Script::Pending, &call).await?;
        let mut reply = reply.ok_or(Error::UnknownGroup)?;
        // Of both kinds there are as many as fit; together, the first ones are the page.
        reply.sort_by_key(|(number, ..)| *number);
        let is_last = reply.len() < count;
        pending.extend(reply.into_iter().take(count).map(
            |(number, attempts, consumer, age, due_in, last_error)| PendingMessage {
                id: MessageId::from_u64(number),
                attempts,
                consumer,
                age: Duration::from_millis(age),
                due_in: Duration::from_millis(due_in),
                last_error,
            },
        ));
        if is_last || pending.len() == max {
            return Ok(pending);
        }
        after = pending.last().map(|message| message.id);
    }
}
