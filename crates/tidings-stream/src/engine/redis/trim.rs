//! Removing what the retention of streams does not keep.

use tidings_redis::redis::cmd;

use super::scripts::{self, Script, Scripts};
use crate::Error;
use crate::engine::trim_round::Round;

/// Most messages that one script removes; fewer mean that nothing is left to remove.
pub(super) const CHUNK: u64 = 1000;

/// Trims every stream that has a bound, and returns how many messages were removed. Other calls run
/// between one chunk and the next.
pub(super) async fn trim_all(scripts: &Scripts) -> Result<u64, Error> {
    let mut bounded = cmd("SMEMBERS");
    bounded.arg(scripts.key("bounded"));
    let streams: Vec<String> = scripts::read(scripts.command(&bounded).await?)?;
    let mut round = Round::default();
    for stream in streams {
        round.add(trim(scripts, &stream).await)?;
    }
    round.finish()
}

async fn trim(scripts: &Scripts, stream: &str) -> Result<u64, Error> {
    let mut call = scripts.call(Script::Trim);
    call.arg(stream);
    let mut total = 0;
    loop {
        let removed: u64 = scripts.run(Script::Trim, &call).await?;
        total += removed;
        if removed < CHUNK {
            return Ok(total);
        }
    }
}
