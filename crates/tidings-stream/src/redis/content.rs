//! Reading messages.

use bytes::Bytes;
use jiff::Timestamp;
use tidings_redis::redis::{Pipeline, Value};

use super::scripts::{Script, Scripts};
use super::{failure, reply};
use crate::{Error, Headers, Message, MessageId, NewMessage, StreamName};

/// What the store has of a message.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) number: u64,
    message: NewMessage,
    created_at: Timestamp,
}

impl Content {
    /// Reads an entry of a log: `<number>-<milliseconds>`, then the headers, if there are any, as
    /// `h`, and the payload as `p`.
    fn read(entry: Value) -> Result<Self, Error> {
        let entry = <[Value; 2]>::try_from(reply::list(entry)?);
        let [id, fields] = entry.map_err(|_| failure::unexpected())?;
        let id: String = reply::read(id)?;
        let (number, created_at) = id.split_once('-').ok_or_else(failure::unexpected)?;
        let mut message = NewMessage::default();
        let mut fields = reply::list(fields)?.into_iter();
        while let (Some(Value::BulkString(field)), Some(Value::BulkString(value))) =
            (fields.next(), fields.next())
        {
            match &*field {
                b"h" => message.headers = decode(&value)?,
                b"p" => message.payload = Bytes::from(value),
                _ => {}
            }
        }
        let created_at = created_at.parse().map_err(Error::backend)?;
        Ok(Self {
            number: number.parse().map_err(Error::backend)?,
            message,
            created_at: Timestamp::from_millisecond(created_at).map_err(Error::backend)?,
        })
    }

    /// The message as it is handed out.
    pub(super) fn into_message(self, stream: StreamName, attempt: u32) -> Message {
        let id = MessageId::from_u64(self.number);
        Message::new(id, stream, self.message, self.created_at, attempt)
    }
}

/// Headers as they are stored: a JSON object; nothing for no headers.
pub(super) fn encode(headers: &Headers) -> Result<Vec<u8>, Error> {
    if headers.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::to_vec(headers).map_err(Error::backend)
}

fn decode(headers: &[u8]) -> Result<Headers, Error> {
    serde_json::from_slice(headers).map_err(Error::backend)
}

/// Reads runs of messages of a stream that had this birth, each in order; `None` when the stream has
/// been deleted since.
///
/// Payloads do not pass through a script, which would copy them.
pub(super) async fn runs(
    scripts: &Scripts,
    stream: &StreamName,
    birth: &str,
    runs: impl Iterator<Item = (u64, u64)>,
) -> Result<Option<Vec<Content>>, Error> {
    let log = scripts.stream_key("log", stream.as_str());
    let mut read = Pipeline::new();
    for (lo, hi) in runs {
        read.cmd("XRANGE").arg(&*log).arg(lo).arg(hi);
    }
    // Asked last: when it is still the same, it was so before.
    let row = scripts.stream_key("stream", stream.as_str());
    read.cmd("HGET").arg(row).arg("birth");
    let mut pages = scripts.pipeline(&read).await?;
    let now: Option<String> = reply::read(pages.pop().unwrap_or_default())?;
    if now.as_deref() != Some(birth) {
        return Ok(None);
    }
    let mut contents = Vec::new();
    for page in pages {
        let entries = reply::list(page)?;
        contents.reserve(entries.len());
        for entry in entries {
            contents.push(Content::read(entry)?);
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
    let found = reply::read(scripts.run(Script::Page, &call).await?)?;
    let Some((birth, lo, hi)): Option<(String, u64, u64)> = found else {
        return Ok(Vec::new());
    };
    let contents = runs(scripts, stream, &birth, std::iter::once((lo, hi))).await?;
    Ok(contents
        .unwrap_or_default()
        .into_iter()
        .map(|content| content.into_message(stream.clone(), 0))
        .collect())
}
