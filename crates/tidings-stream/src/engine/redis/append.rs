//! Appending to a stream.

use std::sync::Arc;

use tidings_redis::redis::Cmd;

use super::failure;
use super::listen::Listener;
use super::scripts::{Script, Scripts};
use crate::engine::group_commit::{Append, AppendError};
use crate::engine::{numbering, stored, time};
use crate::{Error, MessageId, NewMessage, Result, Retention, StreamName};

/// Most messages of one batch: together with the bound on bytes, what the server takes in within about
/// a second, in which it does nothing else.
const MAX_BATCH_MESSAGES: usize = 100_000;

/// Most messages of one entry of a log, and most bytes of them unless it is one. A command per message
/// would be most of what appending costs; and a message that is read alone is read with its entry.
const MAX_ENTRY: usize = 16;
const MAX_ENTRY_BYTES: usize = 4096;

/// Most bytes of a message, its headers and its payload, that shares an entry, as the scripts know it.
pub(super) const LARGE: usize = 1024;

/// Refuses a batch that would hold up all other clients.
pub(super) fn check(messages: &[NewMessage]) -> Result<()> {
    if messages.len() > MAX_BATCH_MESSAGES {
        return Err(Error::InvalidOption {
            field: "batch",
            expected: "at most 100,000 messages",
        });
    }
    Ok(())
}

/// What no other stream has, nor a later one of the same name.
pub(super) fn birth() -> String {
    format!("{:016x}", fastrand::u64(..))
}

/// Appends batches, each with one script.
#[derive(Debug)]
pub(super) struct Appender {
    scripts: Arc<Scripts>,
    listener: Arc<Listener>,
}

impl Appender {
    pub(super) fn new(scripts: Arc<Scripts>, listener: Arc<Listener>) -> Self {
        Self { scripts, listener }
    }

    fn call(
        &self,
        stream: &StreamName,
        messages: &[NewMessage],
        retention: Option<Retention>,
    ) -> Result<Cmd> {
        let mut call = self.scripts.call(Script::Append);
        call.arg(stream.as_str()).arg(birth());
        match retention {
            Some(retention) => add_retention(&mut call, retention),
            None => {
                call.arg("").arg("").arg("");
            }
        }
        let keyed = || {
            let numbered = messages.iter().zip(1_usize..);
            numbered.filter_map(|(message, index)| Some((index, message.publish_key.as_ref()?)))
        };
        let headers = messages
            .iter()
            .map(|message| stored::encode(&message.headers));
        let headers = headers
            .map(|headers| Ok(headers?.unwrap_or_default()))
            .collect::<Result<Vec<String>>>()?;
        let keys = keyed().count();
        let entries = if keys > 0 {
            vec![1; messages.len()]
        } else {
            let sizes = messages.iter().zip(&headers);
            entries(sizes.map(|(message, headers)| message.payload.len() + headers.len()))
        };
        call.arg(keys).arg(entries.len());
        for (index, key) in keyed() {
            call.arg(index).arg(&*key.key).arg(time::millis(key.window));
        }
        for count in entries {
            call.arg(count);
        }
        for (message, headers) in messages.iter().zip(headers) {
            call.arg(headers).arg(&message.payload[..]);
        }
        Ok(call)
    }
}

/// Adds the bounds of a retention to a call; empty texts are no bounds.
pub(super) fn add_retention(call: &mut Cmd, retention: Retention) {
    let (max_len, max_age) = retention.bounds();
    for bound in [max_len, max_age] {
        match bound {
            Some(bound) => call.arg(bound),
            None => call.arg(""),
        };
    }
    call.arg(u8::from(retention.trim_pending));
}

impl Append for Appender {
    async fn append(
        &self,
        stream: &StreamName,
        messages: &[NewMessage],
        retention: Option<Retention>,
    ) -> Result<Vec<MessageId>, AppendError> {
        // No failure is about one message of several: all were checked before.
        let call = self.call(stream, messages, retention);
        let call = call.map_err(AppendError::Failed)?;
        let reply = self.scripts.run(Script::Append, &call).await;
        if !messages.is_empty() {
            // Also when it failed: it may have been done.
            self.listener.wake_unless_listening(stream);
        }
        // The number of the first that does not repeat an earlier one, then place and number of each that
        // does.
        let reply: Vec<u64> = reply.map_err(AppendError::Failed)?;
        Ok(ids(&reply, messages.len())?)
    }
}

/// What an append replied, as the ids of its messages.
fn ids(reply: &[u64], count: usize) -> Result<Vec<MessageId>> {
    let (first, repeats) = reply.split_first().ok_or_else(failure::unreadable)?;
    let repeats = repeats.chunks_exact(2).map(|pair| (pair[0], pair[1]));
    Ok(numbering::ids(*first, count, repeats))
}

/// How many messages each entry gets, by their bytes.
fn entries(sizes: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut entries: Vec<usize> = Vec::new();
    // Of the last entry; none beside a large message.
    let mut room: Option<usize> = None;
    for bytes in sizes {
        match entries.last_mut() {
            Some(count)
                if *count < MAX_ENTRY
                    && bytes <= LARGE
                    && room.is_some_and(|room| bytes <= room) =>
            {
                *count += 1;
                room = room.map(|room| room - bytes);
            }
            _ => {
                entries.push(1);
                room = (bytes <= LARGE).then(|| MAX_ENTRY_BYTES.saturating_sub(bytes));
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_messages_share_entries_and_large_ones_do_not() {
        let entries = |sizes: &[usize]| entries(sizes.iter().copied());
        assert_eq!(entries(&[]), [0; 0]);
        assert_eq!(entries(&[0; 33]), [16, 16, 1]);
        assert_eq!(entries(&[1024; 5]), [4, 1]);
        assert_eq!(entries(&[1, 1025, 0, 1, 5000, 5000, 1]), [1, 1, 2, 1, 1, 1]);
    }

    #[test]
    fn regression_an_append_whose_reply_cannot_be_read_may_have_been_done() {
        assert!(ids(&[], 1).unwrap_err().may_have_been_done());
    }

    #[test]
    fn a_batch_that_would_block_all_clients_is_refused() {
        check(&vec![NewMessage::new(""); MAX_BATCH_MESSAGES]).unwrap();
        let many = vec![NewMessage::new(""); MAX_BATCH_MESSAGES + 1];
        assert!(matches!(
            check(&many).unwrap_err(),
            Error::InvalidOption { field: "batch", .. }
        ));
    }
}
