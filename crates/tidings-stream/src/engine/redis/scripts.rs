//! The scripts, how they are run, and how their replies are read.

use std::sync::Arc;

use tidings_redis::redis::{
    Cmd, ErrorKind, FromRedisValue, Pipeline, ServerErrorKind, Value, cmd, from_redis_value,
};
use tidings_redis::{Error as ServerError, Server};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::failure;
use crate::Error;

/// Puts a script together from its flags and its parts.
macro_rules! script {
    ($flags:literal: $($part:literal)*) => {
        concat!("#!lua", $flags, "\n", $(include_str!(concat!("lua/", $part, ".lua")), "\n"),*)
    };
}

/// A script. Its text says what it takes and returns.
///
/// What takes no room to speak of, and makes some, goes on where the server has none left; appending
/// does not, nor does the creation of a group.
#[derive(Debug, Clone, Copy)]
pub(super) enum Script {
    Append,
    SetRetention,
    Claim,
    Release,
    Settle,
    OpenGroup,
    Seek,
    DeleteGroup,
    DeleteStream,
    Ready,
    CheckIn,
    Members,
    Pending,
    Stats,
    Page,
    Trim,
}

impl Script {
    fn code(self) -> &'static str {
        match self {
            Self::Append => script!("": "keys" "group" "stream" "append"),
            Self::SetRetention => {
                script!(" flags=allow-oom": "keys" "group" "stream" "set_retention")
            }
            Self::Release => script!(" flags=allow-oom": "keys" "group" "release"),
            Self::Claim => script!(" flags=allow-oom": "keys" "group" "stream" "claim"),
            Self::Settle => script!(" flags=allow-oom": "keys" "group" "stream" "settle"),
            Self::OpenGroup => script!("": "keys" "group" "stream" "position" "open_group"),
            Self::Seek => script!(" flags=allow-oom": "keys" "group" "stream" "position" "seek"),
            Self::DeleteGroup => script!(" flags=allow-oom": "keys" "group" "delete_group"),
            Self::DeleteStream => {
                script!(" flags=allow-oom": "keys" "group" "stream" "delete_stream")
            }
            Self::Ready => script!(" flags=no-writes": "keys" "ready"),
            Self::CheckIn => script!(" flags=allow-oom": "keys" "group" "check_in"),
            Self::Members => script!(" flags=no-writes": "keys" "group" "members"),
            Self::Pending => script!(" flags=no-writes": "keys" "group" "pending"),
            Self::Stats => script!(" flags=no-writes": "keys" "group" "stream" "stats"),
            Self::Page => script!(" flags=no-writes": "keys" "group" "stream" "page"),
            Self::Trim => script!(" flags=allow-oom": "keys" "group" "stream" "trim"),
        }
    }

    const ALL: [Self; 16] = [
        Self::Append,
        Self::SetRetention,
        Self::Claim,
        Self::Release,
        Self::Settle,
        Self::OpenGroup,
        Self::Seek,
        Self::DeleteGroup,
        Self::DeleteStream,
        Self::Ready,
        Self::CheckIn,
        Self::Members,
        Self::Pending,
        Self::Stats,
        Self::Page,
        Self::Trim,
    ];
}

/// A server that knows the scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    server: Server,
    /// What all keys of the engine begin with.
    root: Arc<str>,
    /// What the server calls the scripts, in the order of [`Script::ALL`]: the same on every server.
    digests: [String; Script::ALL.len()],
    closing: CancellationToken,
    running: TaskTracker,
}

impl Scripts {
    /// Teaches a server the scripts.
    pub(super) async fn load(server: Server, root: Arc<str>) -> Result<Self, Error> {
        let mut load = Pipeline::new();
        for script in Script::ALL {
            load.cmd("SCRIPT").arg("LOAD").arg(script.code());
        }
        let load = &load;
        let digests = server
            .run(|mut connection| async move { load.query_async(&mut connection).await })
            .await
            .map_err(failure::error)?;
        Ok(Self {
            server,
            root,
            digests,
            closing: CancellationToken::new(),
            running: TaskTracker::new(),
        })
    }

    /// A call of a script, to which its arguments are added.
    pub(super) fn call(&self, script: Script) -> Cmd {
        let mut call = cmd("EVALSHA");
        let digest = self.digests.get(script as usize).map_or("", |it| it);
        call.arg(digest).arg(1).arg(&*self.root);
        call
    }

    /// The key of something that belongs to a stream.
    pub(super) fn stream_key(&self, kind: &str, stream: &str) -> String {
        format!("{}:{kind}:{stream}", self.root)
    }

    /// A key of the engine's own.
    pub(super) fn key(&self, kind: &str) -> String {
        format!("{}:{kind}", self.root)
    }

    /// Runs a script. It is loaded again if the server does not know it, for instance after a restart.
    pub(super) async fn run(&self, script: Script, call: &Cmd) -> Result<Value, Error> {
        let _running = self.begin()?;
        let run = || {
            self.server
                .run(|mut connection| async move { call.query_async(&mut connection).await })
        };
        let error = match run().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if !is_unknown(&error) {
            return Err(failure::error(error));
        }
        // It did nothing, so that a second time is the first.
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(script.code());
        let load = &load;
        self.server
            .run(|mut connection| async move { load.exec_async(&mut connection).await })
            .await
            .map_err(failure::error)?;
        run().await.map_err(failure::error)
    }

    /// Runs commands that are no scripts, and returns what each did.
    pub(super) async fn pipeline(&self, commands: &Pipeline) -> Result<Vec<Value>, Error> {
        let _running = self.begin()?;
        self.server
            .run(|mut connection| async move { commands.query_async(&mut connection).await })
            .await
            .map_err(failure::error)
    }

    /// Runs a command that is no script.
    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, Error> {
        let _running = self.begin()?;
        self.server
            .run(|mut connection| async move { command.query_async(&mut connection).await })
            .await
            .map_err(failure::error)
    }

    /// Refuses further calls, waits for those that are under way, and closes the connection.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.running.close();
        self.running.wait().await;
        self.server.disconnect();
    }

    fn begin(&self) -> Result<impl Sized + use<>, Error> {
        let running = self.running.token();
        if self.closing.is_cancelled() {
            return Err(Error::Closed);
        }
        Ok(running)
    }
}

fn is_unknown(error: &ServerError) -> bool {
    error.kind() == Some(ErrorKind::Server(ServerErrorKind::NoScript))
}

/// A reply as what it is expected to be.
pub(super) fn read<T: FromRedisValue>(value: Value) -> Result<T, Error> {
    from_redis_value(value).map_err(Error::backend)
}

/// The parts of a list.
pub(super) fn list(value: Value) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(failure::unexpected()),
    }
}

/// A reply with a character for each receipt or group, `1` for yes.
pub(super) fn flags(value: Value, count: usize) -> Result<Vec<bool>, Error> {
    match value {
        Value::BulkString(flags) if flags.len() == count => {
            Ok(flags.into_iter().map(|flag| flag == b'1').collect())
        }
        _ => Err(failure::unexpected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::REDRIVE_GROUP;
    use crate::engine::redis::{append, settle, trim};

    /// What stands in Rust and in the scripts is the same.
    #[test]
    fn the_scripts_know_the_same_limits() {
        for line in [
            format!("local LARGE = {}", append::LARGE),
            format!("local CHUNK = {}", trim::CHUNK),
            format!("local MAX_NUMBER = {}", settle::MAX_NUMBER),
            format!("local REDRIVE = '{REDRIVE_GROUP}'"),
        ] {
            assert!(Script::Append.code().lines().any(|it| it == line), "{line}");
        }
    }
}
