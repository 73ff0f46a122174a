//! Deleting a stream.

use super::scripts::{Script, Scripts};
use crate::{Error, StreamName};

/// Deletes a stream with everything that belongs to it.
pub(super) async fn delete_stream(scripts: &Scripts, stream: &StreamName) -> Result<bool, Error> {
    let mut call = scripts.call(Script::DeleteStream);
    call.arg(stream.as_str());
    scripts.run(Script::DeleteStream, &call).await
}
