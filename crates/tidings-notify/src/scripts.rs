//! Redis scripts, and how they are run.

use std::sync::Arc;

use tidings_redis::redis::{Cmd, ErrorKind, Pipeline, ServerErrorKind, Value, cmd};
use tidings_redis::{Error, Server};

/// Puts a script together from its folder, its flags and its parts.
macro_rules! script {
    ($folder:literal, $flags:literal: $($part:literal)*) => {
        concat!(
            "#!lua", $flags, "\n",
            $(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/", $folder, "/", $part, ".lua")), "\n"),*
        )
    };
}
pub(crate) use script;

/// What a prefix of keys must be.
pub(crate) const HASH_TAG: &str = "1 to 255 bytes without braces and control characters";

/// What all keys of this prefix begin with: the braces make it the hash tag, so that they lie in one slot
/// of a cluster. `None` for a prefix that would spoil it.
pub(crate) fn hash_tag(prefix: &str) -> Option<Arc<str>> {
    let is_odd = |c: char| c.is_control() || matches!(c, '{' | '}');
    let is_valid = (1..=255).contains(&prefix.len()) && !prefix.contains(is_odd);
    is_valid.then(|| format!("{{{prefix}}}").into())
}

/// A server that knows some scripts.
#[derive(Debug)]
pub(crate) struct Scripts<const N: usize> {
    server: Server,
    root: Arc<str>,
    codes: [&'static str; N],
    /// What the server calls them: the same on every server.
    digests: [String; N],
}

impl<const N: usize> Scripts<N> {
    /// Teaches a server the scripts. All keys begin with the root.
    pub(crate) async fn load(
        server: Server,
        root: Arc<str>,
        codes: [&'static str; N],
    ) -> Result<Self, Error> {
        let mut load = Pipeline::new();
        for code in codes {
            load.cmd("SCRIPT").arg("LOAD").arg(code);
        }
        let load = &load;
        let digests = server
            .run(|mut connection| async move { load.query_async(&mut connection).await })
            .await?;
        Ok(Self {
            server,
            root,
            codes,
            digests,
        })
    }

    /// A call of a script, to which its arguments are added.
    pub(crate) fn call(&self, script: usize) -> Cmd {
        let mut call = cmd("EVALSHA");
        let digest = self.digests.get(script).map_or("", |it| it);
        call.arg(digest).arg(1).arg(&*self.root);
        call
    }

    /// A key of the store's own.
    pub(crate) fn key(&self, kind: &str) -> String {
        format!("{}:{kind}", self.root)
    }

    /// Runs a script. It is loaded again if the server does not know it, for instance after a restart.
    pub(crate) async fn run(&self, script: usize, call: &Cmd) -> Result<Value, Error> {
        let run = || {
            self.server
                .run(|mut connection| async move { call.query_async(&mut connection).await })
        };
        let error = match run().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let Some(code) = self.codes.get(script).filter(|_| is_unknown(&error)) else {
            return Err(error);
        };
        // It did nothing, so that a second time is the first.
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(code);
        let load = &load;
        self.server
            .run(|mut connection| async move { load.exec_async(&mut connection).await })
            .await?;
        run().await
    }

    /// Closes the connection.
    pub(crate) fn disconnect(&self) {
        self.server.disconnect();
    }
}

fn is_unknown(error: &Error) -> bool {
    error.kind() == Some(ErrorKind::Server(ServerErrorKind::NoScript))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_would_spoil_the_hash_tag_is_refused() {
        assert_eq!(hash_tag("a b").as_deref(), Some("{a b}"));
        for prefix in ["", "{", "a}b", "line\nbreak", &"x".repeat(256)] {
            assert_eq!(hash_tag(prefix), None);
        }
    }
}
