//! The scripts, and how they are run.

use std::sync::Arc;

use tidings_redis::redis::{
    Cmd, ErrorKind, FromRedisValue, Pipeline, ServerErrorKind, Value, cmd, from_redis_value,
};
use tidings_redis::{Error, Server};

use crate::presence::PresenceError;

/// Puts a script together from its flags and its parts.
macro_rules! script {
    ($flags:literal: $($part:literal)*) => {
        concat!("#!lua", $flags, "\n", $(include_str!(concat!("lua/", $part, ".lua")), "\n"),*)
    };
}

/// A script. Its text says what it takes and returns.
#[derive(Debug, Clone, Copy)]
pub(super) enum Script {
    Update,
    Beat,
    End,
    Online,
    Locate,
    Transitions,
}

impl Script {
    const ALL: [Self; 6] = [
        Self::Update,
        Self::Beat,
        Self::End,
        Self::Online,
        Self::Locate,
        Self::Transitions,
    ];

    /// What takes no room to speak of goes on where the server has none left.
    fn code(self) -> &'static str {
        match self {
            Self::Update => script!("": "keys" "users" "update"),
            Self::Beat => script!(" flags=allow-oom": "keys" "users" "reap" "beat"),
            Self::End => script!(" flags=allow-oom": "keys" "end"),
            Self::Online => script!(" flags=no-writes": "keys" "alive" "online"),
            Self::Locate => script!(" flags=no-writes": "keys" "alive" "locate"),
            Self::Transitions => script!(" flags=allow-oom": "keys" "users" "reap" "transitions"),
        }
    }
}

/// A server that knows the scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    server: Server,
    root: Arc<str>,
    /// What the server calls the scripts, in the order of [`Script::ALL`]: the same on every server.
    digests: [String; Script::ALL.len()],
}

impl Scripts {
    /// Teaches a server the scripts. All keys begin with the root.
    pub(super) async fn load(server: Server, root: Arc<str>) -> Result<Self, PresenceError> {
        let mut load = Pipeline::new();
        for script in Script::ALL {
            load.cmd("SCRIPT").arg("LOAD").arg(script.code());
        }
        let load = &load;
        let digests = server
            .run(|mut connection| async move { load.query_async(&mut connection).await })
            .await
            .map_err(PresenceError::backend)?;
        Ok(Self {
            server,
            root,
            digests,
        })
    }

    /// A call of a script, to which its arguments are added.
    pub(super) fn call(&self, script: Script) -> Cmd {
        let mut call = cmd("EVALSHA");
        let digest = self.digests.get(script as usize).map_or("", |it| it);
        call.arg(digest).arg(1).arg(&*self.root);
        call
    }

    /// Runs a script. It is loaded again if the server does not know it, for instance after a restart.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: Script,
        call: &Cmd,
    ) -> Result<T, PresenceError> {
        let run = || {
            self.server.run(|mut connection| async move {
                call.query_async::<Value>(&mut connection).await
            })
        };
        let mut done = run().await;
        if done.as_ref().is_err_and(is_unknown) {
            // It did nothing, so that a second time is the first.
            let mut load = cmd("SCRIPT");
            load.arg("LOAD").arg(script.code());
            let load = &load;
            self.server
                .run(|mut connection| async move { load.exec_async(&mut connection).await })
                .await
                .map_err(PresenceError::backend)?;
            done = run().await;
        }
        let value = done.map_err(PresenceError::backend)?;
        from_redis_value(value).map_err(PresenceError::backend)
    }

    /// Closes the connection.
    pub(super) fn disconnect(&self) {
        self.server.disconnect();
    }
}

fn is_unknown(error: &Error) -> bool {
    error.kind() == Some(ErrorKind::Server(ServerErrorKind::NoScript))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::{LeaseId, MAX_UPDATE};

    /// What stands in Rust and in the scripts is the same.
    #[test]
    fn the_scripts_know_the_same_sizes() {
        let has = |script: Script, line: &str| script.code().lines().any(|it| it == line);
        let width = LeaseId::from(u64::MAX).to_string().len();
        assert!(has(Script::Update, &format!("local WIDTH = {width}")));
        assert!(has(Script::Beat, &format!("local CHUNK = {MAX_UPDATE}")));
    }
}
