//! Reading messages.

use jiff::Timestamp;
use tidings_redis::redis::{Pipeline, Value};

use super::scripts::{Script, Scripts};
use super::{failure, scripts};
use crate::engine::headers;
use crate::{Error, Message, MessageId, NewMessage, StreamName};

/// What the store has of a message.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) number: u64,
    message: NewMessage,
    created_at: Timestamp,
}

impl Content {
    /// Reads an entry of a log: the number of its first message and the milliseconds of their time as
    /// its id, then headers and payload of each.
    fn read(entry: Value, mut add: impl FnMut(Self)) -> Result<(), Error> {
        let entry = <[Value; 2]>::try_from(scripts::list(entry)?);
        let [id, fields] = entry.map_err(|_| failure::unexpected())?;
        let id: String = scripts::read(id)?;
        let (number, created_at) = id.split_once('-').ok_or_else(failure::unexpected)?;
        let mut number: u64 = number.parse().map_err(Error::backend)?;
        let created_at = created_at.parse().map_err(Error::backend)?;
        let created_at = Timestamp::from_millisecond(created_at).map_err(Error::backend)?;
        let mut fields = scripts::list(fields)?.into_iter();
        while let (Some(Value::BulkString(headers)), Some(Value::BulkString(payload))) =
            (fields.next(), fields.next())
        {
            add(Self {
                number,
                message: NewMessage::new(payload).with_headers(headers::decode(Some(&headers))?),
                created_at,
            });
            number += 1;
        }
        Ok(())
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
) -> Result<Option<Vec<Content>>, Error> {
    let log = scripts.stream_key("log", stream.as_str());
    let mut read = Pipeline::new();
    for (lo, hi) in runs {
        // The entry that the first one is in, which may begin before it, and those after it.
        read.cmd("XREVRANGE").arg(&*log).arg(lo).arg("-");
        read.arg("COUNT").arg(1);
        read.cmd("XRANGE").arg(&*log).arg(lo + 1).arg(hi);
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
    for (pages, (lo, hi)) in pages.chunks_exact_mut(2).zip(runs) {
        for page in pages {
            for entry in scripts::list(std::mem::take(page))? {
                Content::read(entry, |content| {
                    if (lo..=hi).contains(&&content.number) {
                        contents.push(content);
                    }
                })?;
            }
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
) -> Result<Vec<Message>, Error> {
    let mut call = scripts.call(Script::Page);
    call.arg(stream.as_str())
        .arg(after.map_or(0, MessageId::as_u64))
        .arg(max);
    let found = scripts.run(Script::Page, &call).await?;
    let Some((birth, lo, hi)): Option<(String, u64, u64)> = found else {
        return Ok(Vec::new());
    };
    let contents = runs(scripts, stream, &birth, &[(lo, hi)]).await?;
    Ok(contents
        .unwrap_or_default()
        .into_iter()
        .map(|content| content.into_message(stream.clone(), 0))
        .collect())
}
