//! Reading messages.

use bytes::Bytes;
use tidings_redis::redis::{Pipeline, Value};

use super::scripts::{Script, Scripts};
use super::{failure, scripts};
use crate::engine::stored;
use crate::{Error, Message, MessageId, Result, StreamName};

/// Reads an entry of a log: its id, then headers and payload of each of its messages.
fn read_entry(stream: &StreamName, entry: Value, mut add: impl FnMut(Message)) -> Result<()> {
    let entry = <[Value; 2]>::try_from(scripts::list(entry)?);
    let [id, fields] = entry.map_err(|_| failure::unexpected())?;
    let id: String = scripts::read(id)?;
    let mut fields = scripts::list(fields)?.into_iter();
    let mut place = 0;
    while let (Some(Value::BulkString(headers)), Some(Value::BulkString(payload))) =
        (fields.next(), fields.next())
    {
        add(message(stream, &id, place, &headers, payload.into())?);
        place += 1;
    }
    Ok(())
}

/// Reads a message that is apart from the log: id, bytes of its headers, headers, and payload.
fn read_apart(stream: &StreamName, apart: Value) -> Result<Message> {
    let Value::BulkString(apart) = apart else {
        return Err(failure::unexpected());
    };
    let mut parts = apart.splitn(3, |byte| *byte == b'\n');
    let mut text = || str::from_utf8(parts.next().unwrap_or_default()).map_err(Error::backend);
    let (id, length) = (text()?, text()?.parse().map_err(Error::backend)?);
    let content = parts.next().unwrap_or_default();
    let content = content.split_at_checked(length);
    let (headers, payload) = content.ok_or_else(failure::unexpected)?;
    message(stream, id, 0, headers, Bytes::copy_from_slice(payload))
}

/// A message of an entry, whose id is the number of its first message and the milliseconds of their time.
fn message(
    stream: &StreamName,
    id: &str,
    place: u64,
    headers: &[u8],
    payload: Bytes,
) -> Result<Message> {
    let (first, created_at) = id.split_once('-').ok_or_else(failure::unexpected)?;
    let first: u64 = first.parse().map_err(Error::backend)?;
    let created_at = created_at.parse().map_err(Error::backend)?;
    stored::message(stream, first + place, created_at, Some(headers), payload)
}

/// Reads runs of messages of a stream that had this birth, each in order; `None` when the stream has
/// been deleted since.
///
/// Payloads do not pass through a script, which would copy them.
pub(super) async fn runs(
    scripts: &Scripts,
    stream: &StreamName,
    birth: &str,
    runs: &[(u64, u64)],
) -> Result<Option<Vec<Message>>> {
    let log = scripts.stream_key("log", stream.as_str());
    let apart = scripts.stream_key("apart", stream.as_str());
    let mut read = Pipeline::new();
    for (lo, hi) in runs {
        // The entry that the first one is in, which may begin before it, those after it, and what is apart.
        read.cmd("XREVRANGE").arg(&*log).arg(lo).arg("-");
        read.arg("COUNT").arg(1);
        read.cmd("XRANGE").arg(&*log).arg(lo + 1).arg(hi);
        read.cmd("ZRANGE")
            .arg(&*apart)
            .arg(lo)
            .arg(hi)
            .arg("BYSCORE");
    }
    // Asked last: when it is still the same, it was so before.
    let row = scripts.stream_key("stream", stream.as_str());
    read.cmd("HGET").arg(row).arg("birth");
    let mut pages = scripts.pipeline(&read).await?;
    let now: Option<String> = scripts::read(pages.pop().unwrap_or_default())?;
    if now.as_deref() != Some(birth) {
        return Ok(None);
    }
    let mut messages = Vec::new();
    for (pages, run) in pages.chunks_exact_mut(3).zip(runs) {
        messages.extend(read_run(
            stream,
            *run,
            pages.iter_mut().map(std::mem::take),
        )?);
    }
    Ok(Some(messages))
}

/// Reads a run from its two pages of entries and what is apart, each message once: an entry that was deleted
/// between these reads is among both.
fn read_run(
    stream: &StreamName,
    (lo, hi): (u64, u64),
    mut pages: impl Iterator<Item = Value>,
) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    for entries in pages.by_ref().take(2) {
        for entry in scripts::list(entries)? {
            read_entry(stream, entry, |message| {
                if (lo..=hi).contains(&message.id.as_u64()) {
                    messages.push(message);
                }
            })?;
        }
    }
    let apart = scripts::list(pages.next().unwrap_or_default())?;
    if !apart.is_empty() {
        for message in apart {
            messages.push(read_apart(stream, message)?);
        }
        messages.sort_by_key(|message| message.id);
        messages.dedup_by_key(|message| message.id);
    }
    Ok(messages)
}

/// Reads messages of a stream in order, from the first one after a number on.
pub(super) async fn page(
    scripts: &Scripts,
    stream: &StreamName,
    after: Option<MessageId>,
    max: usize,
) -> Result<Vec<Message>> {
    let mut after = after.map_or(0, MessageId::as_u64);
    loop {
        let mut call = scripts.call(Script::Page);
        call.arg(stream.as_str()).arg(after).arg(max);
        let found = scripts.run(Script::Page, &call).await?;
        let Some((birth, lo, hi)): Option<(String, u64, u64)> = found else {
            return Ok(Vec::new());
        };
        let messages = runs(scripts, stream, &birth, &[(lo, hi)]).await?;
        let messages = messages.unwrap_or_default();
        // All messages of a page may have been deleted.
        if !messages.is_empty() {
            return Ok(messages);
        }
        after = hi;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    /// An entry whose messages have their numbers as payloads.
    fn entry(first: u64, last: u64) -> Value {
        let fields = (first..=last).flat_map(|number| [text("{}"), text(&number.to_string())]);
        Value::Array(vec![
            text(&format!("{first}-5")),
            Value::Array(fields.collect()),
        ])
    }

    #[test]
    fn a_message_that_was_put_apart_between_the_reads_comes_once() {
        let apart = |number| text(&format!("{number}-5\n2\n{{}}{number}"));
        let pages = [
            Value::Array(vec![entry(1, 4)]),
            Value::Array(vec![entry(5, 8)]),
            // Then 2 and 6 were deleted.
            Value::Array([3, 4, 5, 7, 8, 9].map(apart).into()),
        ];
        let stream = "app.default.s".parse().unwrap();
        let read = read_run(&stream, (2, 9), pages.into_iter()).unwrap();
        assert!(read.iter().map(|it| it.id.as_u64()).eq(2..=9));
        for message in read {
            assert_eq!(message.payload, message.id.to_string());
        }
    }
}
