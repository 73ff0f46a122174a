//! The scripts, how they are run, and how their replies are read.

use std::sync::Arc;

use tidings_redis::Server;
use tidings_redis::redis::{Cmd, FromRedisValue, Pipeline, Value, from_redis_value};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::failure;
use crate::engine::GroupKey;
use crate::{Error, Result};

tidings_redis::scripts! {
    /// A script. Its text says what it takes and returns.
    ///
    /// What takes no room to speak of, and makes some, continues where the server has none left; appending
    /// does not, nor does the creation of a group.
    pub(super) enum Script in "src/engine/redis/lua" {
        Append = "": "keys" "group" "stream" "append",
        SetRetention = " flags=allow-oom": "keys" "group" "stream" "set_retention",
        Claim = " flags=allow-oom": "keys" "group" "stream" "claim",
        Release = " flags=allow-oom": "keys" "group" "release",
        Settle = " flags=allow-oom": "keys" "group" "stream" "settle",
        OpenGroup = "": "keys" "group" "stream" "position" "open_group",
        HasGroup = " flags=no-writes": "keys" "group" "stream" "has_group",
        Seek = " flags=allow-oom": "keys" "group" "stream" "position" "seek",
        DeleteGroup = " flags=allow-oom": "keys" "group" "delete_group",
        DeleteMessage = " flags=allow-oom": "keys" "group" "stream" "delete_message",
        DeleteStream = " flags=allow-oom": "keys" "group" "stream" "delete_stream",
        Ready = " flags=no-writes": "keys" "ready",
        CheckIn = " flags=allow-oom": "keys" "group" "check_in",
        Members = " flags=no-writes": "keys" "group" "members",
        Pending = " flags=no-writes": "keys" "group" "pending",
        Stats = " flags=no-writes": "keys" "group" "stream" "stats",
        Page = " flags=no-writes": "keys" "group" "stream" "page",
        Trim = " flags=allow-oom": "keys" "group" "stream" "trim",
    }
}

/// A server that knows the scripts, until it is closed.
#[derive(Debug)]
pub(super) struct Scripts {
    loaded: tidings_redis::Scripts<Script>,
    closing: CancellationToken,
    running: TaskTracker,
}

impl Scripts {
    /// Teaches a server the scripts.
    pub(super) async fn load(server: Server, root: Arc<str>) -> Result<Self> {
        Ok(Self {
            loaded: tidings_redis::Scripts::load(server, root).await?,
            closing: CancellationToken::new(),
            running: TaskTracker::new(),
        })
    }

    /// A call of a script, to which its arguments are added.
    pub(super) fn call(&self, script: Script) -> Cmd {
        self.loaded.call(script)
    }

    /// A call of a script that is about one group.
    pub(super) fn call_for(&self, script: Script, group: &GroupKey) -> Cmd {
        let mut call = self.call(script);
        call.arg(group.stream.as_str()).arg(group.group.as_str());
        call
    }

    /// The key of something that belongs to a stream.
    pub(super) fn stream_key(&self, kind: &str, stream: &str) -> String {
        format!("{}:{stream}", self.key(kind))
    }

    /// A key of the engine's own.
    pub(super) fn key(&self, kind: &str) -> String {
        self.loaded.key(kind)
    }

    /// Runs a script.
    pub(super) async fn run<T: FromRedisValue>(&self, script: Script, call: &Cmd) -> Result<T> {
        let _running = self.begin()?;
        Ok(self.loaded.run(script, call).await?)
    }

    /// Runs commands that are not scripts, and returns what each did.
    pub(super) async fn pipeline(&self, commands: &Pipeline) -> Result<Vec<Value>> {
        let _running = self.begin()?;
        let server = self.loaded.server();
        let run =
            server.run(|mut connection| async move { commands.query_async(&mut connection).await });
        Ok(run.await?)
    }

    /// Runs a command that is not a script.
    pub(super) async fn command(&self, command: &Cmd) -> Result<Value> {
        let _running = self.begin()?;
        let server = self.loaded.server();
        let run =
            server.run(|mut connection| async move { command.query_async(&mut connection).await });
        Ok(run.await?)
    }

    /// Refuses further calls, waits for those that are under way, and closes the connection.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.running.close();
        self.running.wait().await;
        self.loaded.server().disconnect();
    }

    fn begin(&self) -> Result<impl Sized + use<>> {
        let running = self.running.token();
        if self.closing.is_cancelled() {
            return Err(Error::Closed);
        }
        Ok(running)
    }
}

/// A reply as what it is expected to be.
pub(super) fn read<T: FromRedisValue>(value: Value) -> Result<T> {
    from_redis_value(value).map_err(Error::backend)
}

/// The parts of a list.
pub(super) fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(failure::unexpected()),
    }
}

/// A reply with a character for each receipt or group, `1` for yes.
pub(super) fn flags(value: Value, count: usize) -> Result<Vec<bool>> {
    match value {
        Value::BulkString(flags) if flags.len() == count => {
            Ok(flags.into_iter().map(|flag| flag == b'1').collect())
        }
        _ => Err(failure::unreadable()),
    }
}

#[cfg(test)]
mod tests {
    use tidings_redis::Script as _;

    use super::*;
    use crate::engine::redis::{append, settle};
    use crate::engine::{MAX_HELD_BACK, REDRIVE_GROUP, trim_round};

    #[test]
    fn regression_a_settlement_whose_reply_cannot_be_read_may_have_been_done() {
        assert!(flags(Value::Nil, 1).unwrap_err().may_have_been_done());
    }

    /// What stands in Rust and in the scripts is the same.
    #[test]
    fn the_scripts_know_the_same_limits() {
        for line in [
            format!("local LARGE = {}", append::LARGE),
            format!("local CHUNK = {}", trim_round::CHUNK),
            format!("local MAX_NUMBER = {}", settle::MAX_NUMBER),
            format!("local REDRIVE = '{REDRIVE_GROUP}'"),
            format!("local MAX_HELD_BACK = {MAX_HELD_BACK}"),
        ] {
            assert!(Script::Claim.code().lines().any(|it| it == line), "{line}");
        }
    }
}
