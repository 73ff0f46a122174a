//! Scripts, and how they are run.

use std::marker::PhantomData;
use std::sync::Arc;

use redis::{
    Cmd, ErrorKind, FromRedisValue, Pipeline, ServerErrorKind, Value, cmd, from_redis_value,
};

use crate::{Error, Server};

/// A script of a component. [`scripts!`](crate::scripts) declares all of them.
pub trait Script: Copy + Send + Sync + 'static {
    /// All scripts of the component.
    const ALL: &'static [Self];

    /// The text of the script.
    fn code(self) -> &'static str;

    /// Its place in [`ALL`](Self::ALL).
    fn index(self) -> usize;
}

/// Declares the scripts of a component: an enum, and for each variant its flags and the files that it is
/// put together from, in a folder of the package.
///
/// ```ignore
/// tidings_redis::scripts! {
///     /// The scripts of counters.
///     enum CounterScript in "src/lua" {
///         Increment = "": "keys" "increment",
///         Read = " flags=no-writes": "keys" "read",
///     }
/// }
/// ```
#[macro_export]
macro_rules! scripts {
    (
        $(#[$about:meta])*
        $visible:vis enum $Script:ident in $folder:literal {
            $($Variant:ident = $flags:literal: $($part:literal)+),+ $(,)?
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy)]
        $visible enum $Script {
            $($Variant),+
        }

        impl $crate::Script for $Script {
            const ALL: &'static [Self] = &[$(Self::$Variant),+];

            fn code(self) -> &'static str {
                match self {
                    $(Self::$Variant => concat!(
                        "#!lua", $flags, "\n",
                        $(include_str!(concat!(
                            env!("CARGO_MANIFEST_DIR"), "/", $folder, "/", $part, ".lua"
                        )), "\n"),+
                    )),+
                }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

/// What a prefix of keys must be, for [`hash_tag`].
pub const HASH_TAG: &str = "1 to 255 bytes without braces and control characters";

/// What all keys of a prefix begin with: the braces make it the hash tag, so that they lie in one slot
/// of a cluster. `None` for a prefix that would spoil it, and is not [what it must be](HASH_TAG).
pub fn hash_tag(prefix: &str) -> Option<Arc<str>> {
    let is_odd = |c: char| c.is_control() || matches!(c, '{' | '}');
    let is_valid = (1..=255).contains(&prefix.len()) && !prefix.contains(is_odd);
    is_valid.then(|| format!("{{{prefix}}}").into())
}

/// The scripts of a component on a server.
#[derive(Debug)]
pub struct Scripts<S> {
    server: Server,
    root: Arc<str>,
    /// What the server calls the scripts, in the order of [`Script::ALL`]: the same on every server.
    digests: Vec<String>,
    of: PhantomData<fn(S)>,
}

impl<S: Script> Scripts<S> {
    /// The scripts on a server that need not be there yet. It learns each when it is first run. All keys
    /// begin with `root`.
    pub fn new(server: Server, root: Arc<str>) -> Self {
        let digest = |script: &S| redis::Script::new(script.code()).get_hash().to_owned();
        Self {
            server,
            root,
            digests: S::ALL.iter().map(digest).collect(),
            of: PhantomData,
        }
    }

    /// As [`new`](Self::new), but teaches the server all scripts first, so that one that cannot be reached or
    /// is too old is noticed.
    ///
    /// # Errors
    ///
    /// As for [`Server::run`].
    ///
    /// # Panics
    ///
    /// As for [`Server::run`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn load(server: Server, root: Arc<str>) -> Result<Self, Error> {
        let mut load = Pipeline::new();
        for script in S::ALL {
            load.cmd("SCRIPT").arg("LOAD").arg(script.code());
        }
        let load = &load;
        server
            .run(|mut connection| async move { load.exec_async(&mut connection).await })
            .await?;
        Ok(Self::new(server, root))
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// A key of the component's own.
    pub fn key(&self, kind: &str) -> String {
        format!("{}:{kind}", self.root)
    }

    /// A call of a script, to which its arguments are added. What all keys begin with is its only key.
    pub fn call(&self, script: S) -> Cmd {
        let mut call = cmd("EVALSHA");
        let digest = self.digests.get(script.index()).map_or("", |it| it);
        call.arg(digest).arg(1).arg(&*self.root);
        call
    }

    /// Runs a script. It is loaded again if the server does not know it, for instance after a restart.
    ///
    /// # Errors
    ///
    /// [`Error::Unexpected`] when the reply is of another type, otherwise as for [`Server::run`].
    ///
    /// # Panics
    ///
    /// As for [`Server::run`].
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have run the script or not.
    pub async fn run<T: FromRedisValue>(&self, script: S, call: &Cmd) -> Result<T, Error> {
        let reply = reply(&self.server, script.code(), call).await?;
        from_redis_value(reply).map_err(|error| Error::Unexpected(error.into()))
    }
}

/// Runs a script whatever it returns: one function for the replies of all types.
async fn reply(server: &Server, code: &str, call: &Cmd) -> Result<Value, Error> {
    let run =
        || server.run(|mut connection| async move { call.query_async(&mut connection).await });
    let replied = run().await;
    if !replied.as_ref().is_err_and(is_unknown) {
        return replied;
    }
    // It did nothing, so that a second time is the first.
    let mut load = cmd("SCRIPT");
    load.arg("LOAD").arg(code);
    let load = &load;
    server
        .run(|mut connection| async move { load.exec_async(&mut connection).await })
        .await?;
    run().await
}

fn is_unknown(error: &Error) -> bool {
    error.kind() == Some(ErrorKind::Server(ServerErrorKind::NoScript))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_would_spoil_the_hash_tag_is_refused() {
        assert_eq!(hash_tag("ä b").as_deref(), Some("{ä b}"));
        for prefix in ["", "{", "a}b", "line\nbreak", &"x".repeat(256)] {
            assert_eq!(hash_tag(prefix), None);
        }
    }
}
