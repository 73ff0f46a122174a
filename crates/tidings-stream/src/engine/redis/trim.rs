//! Removing what the retention of streams does not keep.

use tidings_redis::redis::cmd;

use super::scripts;
use super::scripts::{Script, Scripts};
use crate::Error;

/// Most messages that one script removes; fewer mean that nothing is left to remove.
const CHUNK: u64 = 1000;

/// Trims every stream that has a bound, and answers how many messages were removed. Everybody else
/// gets in between one chunk and the next.
pub(super) async fn trim_all(scripts: &Scripts) -> Result<u64, Error> {
    let mut bounded = cmd("SMEMBERS");
    bounded.arg(scripts.key("bounded"));
    let streams: Vec<String> = scripts::read(scripts.command(&bounded).await?)?;
    let mut total = 0;
    for stream in streams {
        let mut call = scripts.call(Script::Trim);
        call.arg(&*stream);
        loop {
            let removed: u64 = scripts::read(scripts.run(Script::Trim, &call).await?)?;
            total += removed;
            if removed < CHUNK {
                break;
            }
        }
    }
    Ok(total)
}
