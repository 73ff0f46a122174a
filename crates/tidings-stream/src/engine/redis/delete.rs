//! Deleting messages and streams.

use super::scripts::{Script, Scripts};
use super::settle::MAX_NUMBER;
use crate::{Error, MessageId, StreamName};

/// Deletes a message, and returns whether it was there.
pub(super) async fn delete_message(
    scripts: &Scripts,
    stream: &StreamName,
    id: MessageId,
) -> Result<bool, Error> {
    if id.as_u64() > MAX_NUMBER {
        return Ok(false);
    }
    let mut call = scripts.call(Script::DeleteMessage);
    call.arg(stream.as_str()).arg(id.as_u64());
    scripts.run(Script::DeleteMessage, &call).await
}

/// Deletes a stream with everything that belongs to it.
pub(super) async fn delete_stream(scripts: &Scripts, stream: &StreamName) -> Result<bool, Error> {
    let mut call = scripts.call(Script::DeleteStream);
    call.arg(stream.as_str());
    scripts.run(Script::DeleteStream, &call).await
}
