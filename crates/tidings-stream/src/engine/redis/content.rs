//! Reading messages.

use bytes::Bytes;
use jiff::Timestamp;
use tidings_redis::redis::{Pipeline, Value};

use super::scripts::{Script, Scripts};
use super::{failure, scripts};
use crate::engine::headers;
use crate::{Error, Message, MessageId, NewMessage, Result, StreamName};

/// What the store has of a message.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) number: u64,
    message: NewMessage,
    created_at: Timestamp,
}

impl Content {
    /// Reads an entry of a log: its id, then headers and payload of each of its messages.
    fn read(entry: Value, mut add: impl FnMut(Self)) -> Result<()> {
        let entry = <[Value; 2]>::try_from(scripts::list(entry)?);
        let [id, fields] = entry.map_err(|_| failure::unexpected())?;
        let id: String = scripts::read(id)?;
        let mut fields = scripts::list(fields)?.into_iter();
        let mut place = 0;
        while let (Some(Value::BulkString(headers)), Some(Value::BulkString(payload))) =
            (fields.next(), fields.next())
        {
            add(Self::new(&id, place, &headers, payload.into())?);
            place += 1;
        }
        Ok(())
    }

    /// Reads a message that is apart from the log: id, bytes of its headers, headers, and payload.
    fn read_apart(message: Value) -> Result<Self> {
        let Value::BulkString(message) = message else {
            return Err(failure::unexpected());
        };
        let mut parts = message.splitn(3, |byte| *byte == b'\n');
        let mut text = || str::from_utf8(parts.next().unwrap_or_default()).map_err(Error::backend);
        let (id, length) = (text()?, text()?.parse().map_err(Error::backend)?);
        let content = parts.next().unwrap_or_default();
        let content = content.split_at_checked(length);
        let (headers, payload) = content.ok_or_else(failure::unexpected)?;
        Self::new(id, 0, headers, Bytes::copy_from_slice(payload))
    }

    /// A message of an entry, whose id is the number of its first message and the milliseconds of their time.
    fn new(id: &str, place: u64, headers: &[u8], payload: Bytes) -> Result<Self> {
        let (first, created_at) = id.split_once('-').ok_or_else(failure::unexpected)?;
        let first: u64 = first.parse().map_err(Error::backend)?;
        let created_at = created_at.parse().map_err(Error::backend)?;
        Ok(Self {
            number: first + place,
            message: NewMessage::new(payload).with_headers(headers::decode(Some(headers))?),
            created_at: Timestamp::from_millisecond(created_at).map_err(Error::backend)?,
        })
    }

    /// The message as it is handed out.
    pub(super) fn into_message(self, stream: StreamName, attempt: u32) -> Message {
        let id = MessageId::from_u64(self.number);
        Message::new(id, stream, self.message, self.created_at, attempt)
    }
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
) -> Result<Option<Vec<Content>>> {
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
    let mut contents = Vec::new();
    for (pages, (lo, hi)) in pages.chunks_exact_mut(3).zip(runs) {
        let begun = contents.len();
        let mut pages = pages.iter_mut().map(std::mem::take);
        for entries in pages.by_ref().take(2) {
            for entry in scripts::list(entries)? {
                Content::read(entry, |content| {
                    if (lo..=hi).contains(&&content.number) {
                        contents.push(content);
                    }
                })?;
            }
        }
        let apart = scripts::list(pages.next().unwrap_or_default())?;
        if !apart.is_empty() {
            for message in apart {
                contents.push(Content::read_apart(message)?);
            }
            contents[begun..].sort_by_key(|content| content.number);
        }
    }
    Ok(Some(contents))
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
        let contents = runs(scripts, stream, &birth, &[(lo, hi)]).await?;
        let contents = contents.unwrap_or_default();
        // All messages of a page may have been deleted.
        if !contents.is_empty() {
            let messages = contents.into_iter();
            let messages = messages.map(|content| content.into_message(stream.clone(), 0));
            return Ok(messages.collect());
        }
        after = hi;
    }
}
