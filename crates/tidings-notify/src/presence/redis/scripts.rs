//! The scripts of presence.

use std::sync::Arc;

use tidings_redis::Server;
use tidings_redis::redis::{Cmd, FromRedisValue, from_redis_value};

use crate::presence::PresenceError;
use crate::scripts::{Scripts, script};

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

/// In the order of [`Script`]. What takes no room to speak of goes on where the server has none left.
const CODES: [&str; 6] = [
    script!("presence/redis/lua", "": "keys" "users" "update"),
    script!("presence/redis/lua", " flags=allow-oom": "keys" "users" "reap" "beat"),
    script!("presence/redis/lua", " flags=allow-oom": "keys" "end"),
    script!("presence/redis/lua", " flags=no-writes": "keys" "alive" "online"),
    script!("presence/redis/lua", " flags=no-writes": "keys" "alive" "locate"),
    script!("presence/redis/lua", " flags=allow-oom": "keys" "users" "reap" "transitions"),
];

/// A server that knows the scripts.
#[derive(Debug)]
pub(super) struct PresenceScripts(Scripts<{ CODES.len() }>);

impl PresenceScripts {
    pub(super) async fn load(server: Server, root: Arc<str>) -> Result<Self, PresenceError> {
        let scripts = Scripts::load(server, root, CODES).await;
        scripts.map(Self).map_err(PresenceError::backend)
    }

    /// A call of a script, to which its arguments are added.
    pub(super) fn call(&self, script: Script) -> Cmd {
        self.0.call(script as usize)
    }

    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: Script,
        call: &Cmd,
    ) -> Result<T, PresenceError> {
        let value = self.0.run(script as usize, call).await;
        from_redis_value(value.map_err(PresenceError::backend)?).map_err(PresenceError::backend)
    }

    pub(super) fn disconnect(&self) {
        self.0.disconnect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::{LeaseId, MAX_UPDATE};

    /// What stands in Rust and in the scripts is the same.
    #[test]
    fn the_scripts_know_the_same_sizes() {
        let has = |script: Script, line: &str| CODES[script as usize].lines().any(|it| it == line);
        let width = LeaseId::from(u64::MAX).to_string().len();
        assert!(has(Script::Update, &format!("local WIDTH = {width}")));
        assert!(has(Script::Beat, &format!("local CHUNK = {MAX_UPDATE}")));
    }
}
